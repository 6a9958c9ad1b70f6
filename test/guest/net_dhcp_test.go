package guest

import (
	"fmt"
	"testing"
)

// checkDHCP has the guest ask for an address and a router, and wants these.
func checkDHCP(t *testing.T, g *Guest, c nic, address, router string) {
	t.Helper()
	run(t, g, c.script(fmt.Sprintf(`
cat > /tmp/bound <<'END'
#!/bin/sh
[ "$1" != bound ] || { ip addr add $ip/$mask dev $interface && ip route add default via $router; }
END
chmod +x /tmp/bound
ip link set $dev up
udhcpc -i $dev -n -q -f -t 10 -T 1 -s /tmp/bound
ip addr show dev $dev
ip addr show dev $dev | grep -q ' %s/'
ip route | grep -q 'default via %s'`, address, router)))
}
