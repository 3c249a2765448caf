#!/usr/bin/env bash
printf '%s\n' @MESSAGE@ @HINT@ >&2
exit 1
