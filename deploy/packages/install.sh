# After the files are there. $1 is the first argument that dpkg or rpm gives; both run this for installs and upgrades.
getent group locker >/dev/null || groupadd --system locker
getent passwd locker >/dev/null ||
    useradd --system --gid locker --home-dir /var/lib/locker --no-create-home --shell /usr/sbin/nologin locker
# The server is not started: first it needs a password in /etc/locker.env. One that runs gets the new program.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart locker.service
fi
