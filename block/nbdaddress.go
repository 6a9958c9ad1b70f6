package block

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// nbdAddress is where an export is.
type nbdAddress struct {
	network, address string // for net.Dial
	export           string
}

// parseNBD reads a URI as the NBD project defines them (doc/uri.md), with two parameters more,
// "connections" and "timeout".
func parseNBD(text string, opt *NBDOptions) (a nbdAddress, err error) {
	const usage = "write nbd://HOST[:PORT][/EXPORT] or nbd+unix:///[EXPORT]?socket=PATH"
	u, err := url.Parse(text)
	if err != nil {
		return a, because(ErrSpec, "not a URI; %s", usage)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" || u.Opaque != "" || u.User != nil {
		return a, because(ErrSpec, "not a URI of an NBD server; %s", usage)
	}
	a.export = strings.TrimPrefix(u.Path, "/")
	if len(a.export) > nbdMaxName {
		return a, because(ErrSpec, "the name of the export has more than %d bytes", nbdMaxName)
	}
	for key := range query {
		value := query.Get(key)
		switch {
		case key == "socket" && u.Scheme == "nbd+unix":
			a.address = value
		case key == "connections":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > nbdMaxConnections {
				return a, because(ErrSpec, "bad number of connections %q; it is 1 to %d", value, nbdMaxConnections)
			}
			opt.Connections = n
		case key == "timeout":
			d, err := time.ParseDuration(value)
			if err != nil || d < time.Second || d > time.Hour {
				return a, because(ErrSpec, "bad timeout %q; it is 1s to 1h", value)
			}
			opt.Timeout = d
		default:
			return a, because(ErrSpec, "unknown parameter %q; %s", key, usage)
		}
	}
	switch u.Scheme {
	case "nbd", "nbd+tcp":
		port := u.Port()
		if port == "" {
			port = nbdDefaultPort
		}
		if u.Hostname() == "" {
			return a, because(ErrSpec, "no host; %s", usage)
		}
		a.network, a.address = "tcp", net.JoinHostPort(u.Hostname(), port)
	case "nbd+unix":
		if u.Host != "" {
			return a, because(ErrSpec, "a host %q where a unix socket is meant: three slashes follow nbd+unix; %s", u.Host, usage)
		}
		if a.address == "" {
			return a, because(ErrSpec, "no socket; write nbd+unix:///%s?socket=PATH", a.export)
		}
		a.network = "unix"
	case "nbds", "nbds+tcp", "nbds+unix":
		return a, because(ErrSpec, "TLS is not known here; use nbd or nbd+unix, through a tunnel where the network is not yours")
	default:
		return a, because(ErrSpec, "unknown scheme %q; %s", u.Scheme, usage)
	}
	return a, nil
}
