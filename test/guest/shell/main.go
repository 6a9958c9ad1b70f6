// Command shell boots the test guest with vfio-user devices and gives a shell in it:
//
//	go run ./test/guest/shell /run/vfu/disk0.sock
//
// Every argument is the socket of a server. The guest goes off when the shell ends; Ctrl-A X
// ends QEMU at once.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"vfiouser/test/guest"
)

func main() {
	var cfg guest.Config
	flag.IntVar(&cfg.CPUs, "cpus", 1, "virtual processors")
	anonymous := flag.Bool("anonymous", false, "guest memory without a descriptor: the server must use messages")
	flag.BoolVar(&cfg.Network, "network", false, "a guest for network cards: virtio_net, iproute2, ethtool, iperf3")
	flag.Parse()
	cfg.Sockets = flag.Args()
	if *anonymous {
		cfg.Memory = guest.MemoryAnonymous
	}
	if err := run(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "shell:", err)
		os.Exit(1)
	}
}

func run(cfg guest.Config) error {
	lab, err := guest.Open(context.Background(), os.Stderr)
	if err != nil {
		return err
	}
	return lab.Command(cfg).Run()
}
