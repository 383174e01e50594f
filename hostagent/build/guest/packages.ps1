# Prints the packages, "name version" a line. Names have no spaces there.
Get-Package -ErrorAction SilentlyContinue | Sort-Object Name | ForEach-Object { '{0} {1}' -f ($_.Name -replace '\s+', '_'), $_.Version }
exit 0
