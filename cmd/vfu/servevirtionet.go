package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vfiouser/devices/virtio"
	virtionet "vfiouser/devices/virtio-net"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
	"vfiouser/engine"
	"vfiouser/link"
)

const serveVirtioNetLong = `Serve virtio network cards.

Each --socket (or --fd) begins a card; the options of a card that follow it are its own:

  vfu serve virtio-net --socket /run/a.sock --link switch:lan \
                       --socket /run/b.sock --link switch:lan --queues 4

A link is what the card's cable leads to; docs/links.md has their arguments.`

func serveVirtioNetCommand(p *process) *cobra.Command {
	return serveKind(p, virtioNetKind(), &cobra.Command{
		Use:   "virtio-net --socket PATH --link KIND:ARGUMENT …",
		Short: "Serve virtio network cards",
		Long:  serveVirtioNetLong,
	})
}

func virtioNetKind() kind {
	return kind{"virtio-net", func() device { return &card{} }}
}

// card is what is said of a network card.
type card struct {
	common
	link   string
	config virtionet.Config
}

func (*card) kind() string { return "virtio-net" }

func (c *card) options() []option {
	number := func(set func(*virtionet.Config, int)) func(string) error {
		return c.try(func(cfg *virtionet.Config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > math.MaxInt32 {
				return errors.New("must be a whole number from 1 on")
			}
			set(cfg, n)
			return nil
		})
	}
	features := func(without func(named uint64) (uint64, error)) func(string) error {
		return c.try(func(cfg *virtionet.Config, s string) error {
			named, err := parseFeatures(s)
			if err == nil {
				named, err = without(named)
			}
			cfg.Without |= named
			return err
		})
	}
	return append(c.places("card"),
		option{name: "link", value: "KIND:ARG", usage: "what the card is connected to: tap, stream, switch, loop or null, and pcap or faults in front of any", set: func(s string) error {
			c.link = s
			return link.Check(s)
		}},
		option{name: "mac", value: "ADDRESS", usage: "address of the card (default a random one)", set: c.try(func(cfg *virtionet.Config, s string) (err error) {
			if cfg.MAC, err = net.ParseMAC(s); err != nil {
				return errors.New("must be an address such as 52:54:00:12:34:56")
			}
			return nil
		})},
		option{name: "queues", form: integer, value: "N", usage: fmt.Sprintf("queue pairs, 1 to %d (default 1)", virtionet.MaxPairs),
			set: number(func(cfg *virtionet.Config, n int) { cfg.Pairs = n })},
		option{name: "queue-size", form: integer, value: "N", usage: "entries that a queue has at most, a power of two (default 1024)",
			set: number(func(cfg *virtionet.Config, n int) { cfg.QueueSize = n })},
		option{name: "mtu", form: integer, value: "BYTES", usage: "what the driver is told of the network's MTU (default nothing)",
			set: number(func(cfg *virtionet.Config, n int) { cfg.MTU = n })},
		option{name: "speed", form: integer, value: "MBITS", usage: "what the driver is told of the link's speed, Mbit/s (default unknown)",
			set: number(func(cfg *virtionet.Config, n int) { cfg.Speed = uint32(n) })},
		option{name: "doorbells", value: "MODE", usage: "auto, trap or mmap (default auto)", set: c.try(func(cfg *virtionet.Config, s string) (err error) {
			cfg.Doorbells, err = virtio.ParseDoorbells(s)
			return err
		})},
		option{name: "idle-poll", value: "DURATION",
			usage: fmt.Sprintf("longest pause between two looks at idle mapped doorbells (default %v)", engine.DefaultMaxSleep),
			set:   pause(func(d time.Duration) { c.config.IdlePoll = d })},
		option{name: "features", form: texts, value: "NAMES", usage: "offer these features only, for example mrg_rxbuf,packed,event_idx",
			set: features(func(named uint64) (uint64, error) { return ^named, nil })},
		option{name: "without-features", form: texts, value: "NAMES", usage: "offer all features but these",
			set: features(func(named uint64) (uint64, error) {
				if named&spec.FeatureVersion1 != 0 {
					return 0, errors.New("every device offers version_1")
				}
				return named, nil
			})},
	)
}

// try sets something of the configuration if a card takes it, which the card decides itself.
func (c *card) try(set func(*virtionet.Config, string) error) func(string) error {
	return func(s string) error {
		alone := virtionet.Config{Link: link.Null()}
		if err := set(&alone, s); err != nil {
			return err
		}
		made, err := virtionet.New(alone)
		if err != nil {
			return err
		}
		return errors.Join(made.Close(), alone.Link.Close(), set(&c.config, s))
	}
}

// parseFeatures takes names of features that a card can offer, separated by commas, or
// nothing; "packed" is ring_packed too.
func parseFeatures(s string) (features uint64, err error) {
	everything, err := virtionet.New(virtionet.Config{Link: link.Null(), Pairs: 2, MTU: netspec.MinMTU})
	if err != nil {
		return 0, err
	}
	known := featureNames(netspec.DeviceType, everything.Features())
	if err := everything.Close(); err != nil || s == "" {
		return 0, err
	}
	bits := map[string]uint64{"packed": spec.FeatureRingPacked}
	for bit := range 64 {
		if name := featureName(netspec.DeviceType, bit); slices.Contains(known, name) {
			bits[name] = 1 << bit
		}
	}
	for name := range strings.SplitSeq(s, ",") {
		bit, ok := bits[strings.ToLower(strings.TrimSpace(name))]
		if !ok {
			return 0, fmt.Errorf("unknown feature %q; known are %s", name, strings.Join(known, ", "))
		}
		features |= bit
	}
	return features, nil
}

func (c *card) check() error {
	if c.link == "" {
		return c.missing("--link", "link", "what should the card be connected to?")
	}
	return nil
}

func (c *card) open(env *environment) (served, error) {
	l, err := env.links.Open(c.link)
	if err != nil {
		return served{}, err
	}
	config := c.config
	config.Link = l
	made, err := virtionet.New(config)
	if err != nil {
		return served{}, errors.Join(err, l.Close())
	}
	return served{device: made, link: c.link, close: func() error { return errors.Join(made.Close(), l.Close()) }}, nil
}
