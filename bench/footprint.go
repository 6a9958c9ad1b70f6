package bench

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	nvme "vfiouser/devices/nvme"
	virtionet "vfiouser/devices/virtio-net"
	"vfiouser/engine"
	"vfiouser/link"
)

// footprints are what a device can be whose memory is measured: one with a few registers, an NVMe
// controller with a namespace that stores nothing, a network card on a link to nowhere.
var footprints = []string{"registers", "nvme", "virtio-net"}

// How many devices and sessions, or regions, are made to see what one takes.
const (
	footprintDevices = 64
	footprintRegions = 4096
)

// memoryCases are what a server that does nothing else has more for one more device that
// listens, for one more session, and for a region that a session has mapped. "heap" is the live
// Go heap with stacks; "resident" is the process's resident set, which has the heap's spare
// pages, the mappings and everything else in it.
func memoryCases() (cases []Case) {
	for kind, name := range footprints {
		for _, what := range []string{"device", "session"} {
			for _, resident := range []bool{false, true} {
				cases = append(cases, Case{
					Name:  fmt.Sprintf("memory/%s/%s/%s", what, name, measureName(resident)),
					Quick: name == "nvme" && resident,
					Full:  name == "registers" && resident,
					Setup: func(env *Env) (Subject, error) { return memorySubject(env, kind, what == "session", resident) },
				})
			}
		}
	}
	for _, resident := range []bool{false, true} {
		cases = append(cases, Case{
			Name: "memory/region/" + measureName(resident), Full: resident,
			Setup: func(env *Env) (Subject, error) { return regionMemorySubject(env, resident) },
		})
	}
	return cases
}

func measureName(resident bool) string {
	if resident {
		return "resident"
	}
	return "heap"
}

// memorySubject looks at a server before and after it has got devices, or those their clients.
func memorySubject(env *Env, kind int, sessions, resident bool) (Subject, error) {
	server, err := spawn(env, "footprint", kind, footprintDevices)
	if err != nil {
		return Subject{}, err
	}
	makeDevices := func() error { return order(server, orderDevices, nil) }
	if sessions {
		if err := makeDevices(); err != nil {
			return Subject{}, err
		}
	}
	return Subject{Gauge: func() (float64, string, error) {
		var fds []int
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		return grown(server, resident, footprintDevices, func() error {
			if !sessions {
				return makeDevices()
			}
			for i := range footprintDevices {
				fd, err := connect(devicePath(env, i))
				if err != nil {
					return err
				}
				fds = append(fds, fd)
				if err := negotiate(fd); err != nil {
					return err
				}
			}
			return nil
		})
	}}, nil
}

func regionMemorySubject(env *Env, resident bool) (Subject, error) {
	server, err := spawn(env, "footprint", 0, 1)
	if err != nil {
		return Subject{}, err
	}
	if err := order(server, orderDevices, nil); err != nil {
		return Subject{}, err
	}
	fd, err := connect(devicePath(env, 0))
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { unix.Close(fd) })
	if err := negotiate(fd); err != nil {
		return Subject{}, err
	}
	return Subject{Gauge: func() (float64, string, error) {
		return grown(server, resident, footprintRegions, func() error { return mapRegions(fd, footprintRegions) })
	}}, nil
}

// grown is what a server has more for each of n things that it is given.
func grown(server int, resident bool, n int, give func() error) (float64, string, error) {
	which := 0
	if resident {
		which = 1
	}
	var before, after [2]uint64
	if err := order(server, orderMeasure, before[:]); err != nil {
		return 0, "", err
	}
	if err := give(); err != nil {
		return 0, "", err
	}
	if err := order(server, orderMeasure, after[:]); err != nil {
		return 0, "", err
	}
	// What was there before may have been given back meanwhile.
	return max(float64(after[which])-float64(before[which]), 0) / float64(n), "B", nil
}

// What a server is asked for: a byte, answered with a byte, or with its heap and its resident set.
const (
	orderDevices = 'd'
	orderMeasure = 'm'
)

func order(server int, what byte, numbers []uint64) error {
	if err := sendAll(server, []byte{what}); err != nil {
		return err
	}
	reply := make([]byte, max(8*len(numbers), 1))
	for have := 0; have < len(reply); {
		n, err := recvSome(server, reply[have:])
		if err != nil {
			return err
		}
		have += n
	}
	for i := range numbers {
		numbers[i] = binary.NativeEndian.Uint64(reply[8*i:])
	}
	return nil
}

// playFootprint is a server that makes so many devices of a kind when it is told to, and says
// what memory it has.
func playFootprint(fd int, args []int) error {
	if len(args) != 2 || args[0] >= len(footprints) {
		return errRole
	}
	e, err := engine.New(engine.Config{})
	if err != nil {
		return err
	}
	for what := make([]byte, 1); ; {
		if n, err := unix.Read(fd, what); err == unix.EINTR {
			continue
		} else if n <= 0 || err != nil {
			return e.Close()
		}
		reply := []byte{0}
		switch what[0] {
		case orderDevices:
			for i := range args[1] {
				if err := listenAs(e, footprints[args[0]], i); err != nil {
					return err
				}
			}
		case orderMeasure:
			if reply, err = ownMemory(); err != nil {
				return err
			}
		}
		if err := sendAll(fd, reply); err != nil {
			return err
		}
	}
}

// listenAs has a device of a kind listen in the current folder.
func listenAs(e *engine.Engine, kind string, i int) error {
	var d engine.Device
	var err error
	switch kind {
	case "nvme":
		d, err = emptyDisk(nvme.Auto)
	case "virtio-net":
		d, err = virtionet.New(virtionet.Config{Link: link.Null()})
	default:
		d = newRegisters(smallBAR)
	}
	if err != nil {
		return err
	}
	ep, err := e.Register(deviceName(i), d)
	if err != nil {
		return err
	}
	return ep.Start()
}

// ownMemory is the live heap with its stacks, and the resident set, in bytes.
func ownMemory() ([]byte, error) {
	debug.FreeOSMemory() // collects first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil, err
	}
	var size, resident uint64 // pages
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return nil, err
	}
	reply := binary.NativeEndian.AppendUint64(nil, m.HeapAlloc+m.StackInuse)
	return binary.NativeEndian.AppendUint64(reply, resident*uint64(os.Getpagesize())), nil
}
