package irq_test

import (
	"fmt"
	"log"

	"golang.org/x/sys/unix"

	"vfiouser/irq"
)

// A vector that is triggered while it is masked fires when the client unmasks it.
func Example() {
	client, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		log.Fatal(err)
	}
	defer unix.Close(client)
	server, err := unix.FcntlInt(uintptr(client), unix.F_DUPFD_CLOEXEC, 0) // what travels over the socket
	if err != nil {
		log.Fatal(err)
	}

	set := irq.NewSet(irq.Config{Counts: [irq.NumIndexes]int{irq.MSIX: 4}})
	defer set.Close()
	if err := set.SetEventfds(irq.MSIX, 2, []int{server}); err != nil {
		log.Fatal(err)
	}
	_ = set.Mask(irq.MSIX, 2, 1, nil)

	vector := set.Vector(irq.MSIX, 2) // the data path keeps this
	_ = vector.Trigger()
	fmt.Println("pending:", vector.Pending())
	_ = set.Unmask(irq.MSIX, 2, 1, nil)

	var counter [8]byte
	n, err := unix.Read(client, counter[:])
	fmt.Println("read:", n, err)

	// Output:
	// pending: true
	// read: 8 <nil>
}
