# After the files are gone. The store in /var/lib/locker and the user who owns it stay: they are yours to remove.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
