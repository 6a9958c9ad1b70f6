package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"

	"vfiouser/engine"
	"vfiouser/link"
)

// device is a device that is to be served, as far as the command line or a file has
// described it.
type device interface {
	kind() string
	base() *common
	// options are those that set this device.
	options() []option
	// check says what is missing.
	check() error
	// open makes the device and what is behind it.
	open(*environment) (served, error)
}

// environment is what the devices of a process share.
type environment struct {
	log        *slog.Logger
	links      link.Set
	subsystems map[*controller]*subsystem
}

// kind is a kind of devices.
type kind struct {
	name string
	make func() device
}

// kinds are all that can be served, by the names that they have in a file.
func kinds() []kind {
	return []kind{nvmeKind(), virtioNetKind()}
}

func kindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// place is where a device is served: a socket path, or an inherited descriptor.
type place struct {
	path string
	fd   int // used if path is empty
}

func (p place) String() string {
	if p.path == "" {
		return fmt.Sprintf("descriptor %d", p.fd)
	}
	return p.path
}

func (p place) register(e *engine.Engine, d engine.Device) (*engine.Endpoint, error) {
	if p.path == "" {
		return e.RegisterFD(p.fd, d)
	}
	return e.Register(p.path, d)
}

// common is what is said of every device.
type common struct {
	place *place
	// at is where a file describes it, empty for a device of the command line.
	at string
}

func (c *common) base() *common { return c }

// String is how errors call the device.
func (c *common) String() string {
	if c.at == "" {
		return c.place.String()
	}
	return c.at
}

// missing is the error for a device which lacks an option, or the key that stands for it.
func (c *common) missing(option, key, why string) error {
	if c.at != "" {
		option = key
	}
	return usageError{fmt.Errorf("%s: no %s: %s", c, option, why)}
}

// places are the options that say where a device is served.
func (c *common) places(what string) []option {
	put := func(p place) error {
		if c.place != nil {
			return errors.New("a device has one socket or fd, not both")
		}
		c.place = &p
		return nil
	}
	return []option{
		{name: "socket", begins: true, value: "PATH", usage: "begin a " + what + " on a unix socket (also --socket-path)", set: func(s string) error {
			if s == "" {
				return errors.New("is empty")
			}
			return put(place{path: s})
		}},
		{name: "fd", form: integer, begins: true, value: "N", usage: "begin a " + what + " on an inherited socket, listening or connected",
			set: func(s string) (err error) {
				if rangeErr := between(0, math.MaxInt32, func(n int) { err = put(place{fd: n}) })(s); rangeErr != nil {
					return errors.New("must be the number of an open descriptor")
				}
				return err
			}},
	}
}

// check looks at all of the devices before the first one is opened. control is the path of the
// control socket, or empty.
func check(list []device, control string) error {
	taken := make(map[place]*common)
	for _, d := range list {
		c := d.base()
		if c.place == nil {
			return c.missing("--socket (or --fd)", "socket (or fd)", "where should the device be served?")
		}
		p := *c.place
		if p.path != "" {
			p.path = filepath.Clean(p.path)
		}
		switch other := taken[p]; {
		case other == nil:
		case c.at == "":
			return usageError{fmt.Errorf("%s: two devices are to be served there: give each a socket of its own", c)}
		default:
			return usageError{fmt.Errorf("%s: %s is the place of the device of %s too: give each a socket of its own", c, printable(p.String()), other)}
		}
		if control != "" && p.path == filepath.Clean(control) {
			return usageError{fmt.Errorf("%s: the control socket is to be there too: give each a path of its own", c)}
		}
		taken[p] = c
		if err := d.check(); err != nil {
			return err
		}
	}
	_, err := subsystems(list)
	return err
}

// listed says where devices are: "nvme on /run/a, /run/b".
func listed(list []device) string {
	return byKind(list, func(k string, of []device) string {
		places := make([]string, len(of))
		for i, d := range of {
			places[i] = d.base().place.String()
		}
		return k + " on " + strings.Join(places, ", ")
	})
}

// counted says how many devices there are: "2 nvme".
func counted(list []device) string {
	return byKind(list, func(k string, of []device) string { return fmt.Sprintf("%d %s", len(of), k) })
}

func byKind(list []device, say func(kind string, of []device) string) string {
	var parts []string
	for _, k := range kinds() {
		var of []device
		for _, d := range list {
			if d.kind() == k.name {
				of = append(of, d)
			}
		}
		if len(of) > 0 {
			parts = append(parts, say(k.name, of))
		}
	}
	return strings.Join(parts, "; ")
}
