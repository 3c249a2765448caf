[Console]::Error.WriteLine(@MESSAGE@)
[Console]::Error.WriteLine(@HINT@)
throw @MESSAGE@
