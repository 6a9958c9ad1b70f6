package virtionet_test

import (
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	virtionet "vfiouser/devices/virtio-net"
	"vfiouser/engine"
	"vfiouser/link"
)

// Two cards on a switch, each behind a socket that a virtual machine connects to.
func Example() {
	dir, err := os.MkdirTemp("", "cards")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	eng, err := engine.New(engine.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()
	lan := link.NewSwitch(link.SwitchConfig{})
	defer lan.Close()
	for _, name := range []string{"net0", "net1"} {
		card, err := virtionet.New(virtionet.Config{Link: lan, Pairs: 4, MTU: 9000})
		if err != nil {
			log.Fatal(err)
		}
		defer card.Close()
		ep, err := eng.Register(filepath.Join(dir, name+".sock"), card)
		if err != nil {
			log.Fatal(err)
		}
		if err := ep.Start(); err != nil {
			log.Fatal(err)
		}
		defer ep.Close()
		fmt.Println("serving", filepath.Base(ep.Path()))
	}
	// … until the program is to end.

	// Output:
	// serving net0.sock
	// serving net1.sock
}

func ExampleCard_Stats() {
	card, err := virtionet.New(virtionet.Config{Link: link.Null(), MAC: net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}})
	if err != nil {
		log.Fatal(err)
	}
	defer card.Close()
	for i, q := range card.Stats() {
		fmt.Printf("pair %d of %v: %d frames sent, %d received, %d had no buffer\n",
			i, card.MAC(), q.Transmit.Frames, q.Receive.Frames, q.Receive.NoBuffer)
	}
	// Output: pair 0 of 52:54:00:12:34:56: 0 frames sent, 0 received, 0 had no buffer
}
