# What tests/service/systemd.rs has done on a machine of its own (machine.sh), as root: each line that it
# says is a name, a colon and what was found.
export PGPASSWORD='first and secret'

found() { printf '%s: %s\n' "$1" "$(printf '%s' "$2" | tr '\n' ' ' | sed 's/ *$//')"; }
show() { systemctl show --property="$1" --value oribi.service; }
sql() { psql -XAtq "host=127.0.0.1 port=5439 user=oribi dbname=oribi $2" -c "$1" 2>&1; }

# Waits for a condition, at most a minute.
until_so() {
    waited=0
    until eval "$1"; do
        waited=$((waited + 1))
        [ "$waited" -lt 600 ] || { found "waited in vain" "$1"; return; }
        sleep 0.1
    done
}

units=/run/systemd/system
mkdir -p "$units/oribi.service.d" /etc/oribi/secrets
cp /machine/units/oribi.service /machine/units/oribi.socket "$units"
cp /machine/units/credentials.conf "$units/oribi.service.d"
# Without a journal its log would be nowhere.
printf '[Service]\nStandardError=append:/machine/log\n' >"$units/oribi.service.d/log.conf"
cp /machine/oribi.toml /machine/server.pem /etc/oribi
cp /machine/secrets/* /etc/oribi/secrets
chmod 700 /etc/oribi/secrets
chmod 600 /etc/oribi/secrets/*
systemctl daemon-reload

# A client has systemd start the daemon, and waits.
systemctl start oribi.socket
found "before anybody came" "$(show ActiveState)"
found "the first client" "$(sql "SELECT 'served'" sslmode=require)"
found "then" "$(show ActiveState)"
found "status" "$(show StatusText)"
pid=$(show MainPID)
found "of root" "$(stat -c %U "/proc/$pid" | grep -c '^root$')"

# Each secret has arrived, and is nowhere else.
found "credentials" "$(cd /run/credentials/oribi.service && stat -c '%n %a' *)"
found "encrypted" "$(sql 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()' sslmode=require)"
found "another password" "$(PGPASSWORD=another sql 'SELECT 1' '' | grep -o 'password authentication failed' | sort -u)"
found "in its environment" "$(tr '\0' '\n' <"/proc/$pid/environ" | grep -c 'first and secret')"
found "for others" "$(setpriv --reuid=65534 --clear-groups cat /run/credentials/oribi.service/tls-key 2>&1 | grep -o 'Permission denied')"

# Who comes while it restarts waits for the next one, or was in the middle and is told.
(systemctl restart oribi.service; echo done >/tmp/restarted) &
while [ ! -e /tmp/restarted ]; do sql "SELECT 'served'" ''; done >/tmp/clients
found "served over a restart" "$(grep -c '^served$' /tmp/clients)"
found "not served" "$(grep -v -e '^served$' -e 'terminating connection' -e 'connection to server was lost' -e 'shutting down' /tmp/clients | sort -u)"
found "another process" "$([ "$(show MainPID)" != "$pid" ] && echo yes)"

# It reads its settings again.
sed -i 's/scram-sha-256/reject/' /etc/oribi/oribi.toml
systemctl reload oribi.service
found "reload" "$?"
until_so 'sql "SELECT 1" "" | grep -q "rejects connection"'
sed -i 's/reject/scram-sha-256/' /etc/oribi/oribi.toml
systemctl reload oribi.service
until_so 'sql "SELECT 1" "" | grep -q "^1$"'

# It comes back after a crash, and when it is stuck; then with a name of its own for each start.
pid=$(show MainPID)
kill -KILL "$pid"
until_so '[ "$(show NRestarts)" = 1 ] && [ "$(show ActiveState)" = active ]'
found "after a crash" "$(sql "SELECT 'served'" '')"
printf '[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\n' >"$units/oribi.service.d/watchdog.conf"
systemctl daemon-reload
systemctl restart oribi.service
pid=$(show MainPID)
sleep 4
found "its signs of life" "$([ "$(show MainPID)" = "$pid" ] && echo come)"
kill -STOP "$pid"
until_so '[ "$(show MainPID)" != "$pid" ] && [ "$(show ActiveState)" = active ]'
found "after it was stuck" "$(sql "SELECT 'served'" '')"

# A wrong setting does not mend itself: it is not tried again.
echo 'nonsense = 1' >>/etc/oribi/oribi.toml
systemctl stop oribi.socket
systemctl restart oribi.service 2>/dev/null
found "a wrong setting" "$? $(show Result) $(show ExecMainStatus)"
before=$(show NRestarts)
sleep 3
found "and is left alone" "$(show ActiveState) $(($(show NRestarts) - before))"

sed -i '/nonsense/d' /etc/oribi/oribi.toml
systemctl start oribi.service
pid=$(show MainPID)
systemctl stop oribi.service
found "stop" "$(show Result) $(show ExecMainStatus)"
found "credentials after it" "$(ls /run/credentials)"
