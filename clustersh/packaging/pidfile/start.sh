#!/bin/sh
# Starts the $title in the background, where nothing else starts services. Made by: $name service install
# With the machine: crontab -e, and the line   @reboot $script
set -eu
exec $command
