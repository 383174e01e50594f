# Takes from a system what its building left. What makes it one machine among many (its SID, its activation) is sysprep's
# business: a script that the image brings is run last for that.
$ErrorActionPreference = 'SilentlyContinue'
Get-ChildItem 'C:\Windows\Temp', 'C:\Users\*\AppData\Local\Temp' -Force |
    Where-Object { $_.FullName -ne 'C:\Windows\Temp\daybreak-build' } | Remove-Item -Recurse -Force
Remove-Item 'C:\Users\*\AppData\Roaming\Microsoft\Windows\PowerShell\PSReadLine\*_history.txt' -Force
Remove-Item 'C:\ProgramData\ssh\ssh_host_*_key*' -Force
foreach ($log in (wevtutil.exe el)) { wevtutil.exe cl "$log" 2>$null }
$hook = 'C:\ProgramData\Daybreak\seal.ps1'
if (Test-Path $hook) {
    & powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File $hook
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}
Get-Volume | Where-Object { $_.DriveLetter -and $_.DriveType -eq 'Fixed' } | Optimize-Volume -ReTrim
exit 0
