# Before the files go, but not in an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl disable --now locker.service locker.socket
fi
