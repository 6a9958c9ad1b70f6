package interop

import (
	"bytes"
	"encoding/binary"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// Commands of the protocol, and what SPDK has for its regions.
const (
	cmdVersion     = 1
	cmdDMAMap      = 2
	cmdDMAUnmap    = 3
	cmdGetInfo     = 4
	cmdRegionInfo  = 5
	cmdRegionRead  = 9
	cmdRegionWrite = 10

	headerSize = 16
	typeReply  = 1

	regionBAR0   = 0
	regionConfig = 7

	hugepage = 2 << 20
	spdkIOVA = 0x200000200000
	spdkPool = 2 // hugepages, each with a file of its own
)

// initiator sends what SPDK's initiator sends (lib/vfio_user/host and
// lib/nvme/nvme_vfio_user.c of v25): message ids of 0, one request at a time, each reply read
// as SPDK does, doorbells through the mapping only.
type initiator struct {
	t      *testing.T
	conn   *net.UnixConn
	files  [spdkPool]int
	memory [spdkPool][]byte
	bells  []byte
	queues [2]*spdkQueue
}

type spdkQueue struct {
	id, size   uint16
	sq, cq     uint64
	tail, head uint16
	phase      uint64
	cid        uint16
}

// call sends a request and returns the payload and the descriptors of its reply.
func (s *initiator) call(cmd uint16, payload []byte, fds ...int) ([]byte, []int) {
	s.t.Helper()
	le := binary.LittleEndian
	msg := make([]byte, headerSize, headerSize+len(payload))
	le.PutUint16(msg[2:], cmd)
	le.PutUint32(msg[4:], uint32(headerSize+len(payload)))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := s.conn.WriteMsgUnix(append(msg, payload...), rights, nil); err != nil {
		s.t.Fatal(err)
	}
	// The header in one recvmsg, with the descriptors; the rest in one read.
	var header [headerSize]byte
	oob := make([]byte, unix.CmsgSpace(16*4))
	n, k, flags, _, err := s.conn.ReadMsgUnix(header[:], oob)
	if err != nil || n != headerSize || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		s.t.Fatalf("command %d: %d bytes of a header, flags %#x, %v", cmd, n, flags, err)
	}
	if id, c := le.Uint16(header[0:]), le.Uint16(header[2:]); id != 0 || c != cmd {
		s.t.Fatalf("command %d: the reply has id %d and command %d", cmd, id, c)
	}
	if f, e := le.Uint32(header[8:]), le.Uint32(header[12:]); f != typeReply || e != 0 {
		s.t.Fatalf("command %d: the reply has flags %#x and errno %d", cmd, f, e)
	}
	reply := make([]byte, le.Uint32(header[4:])-headerSize)
	if len(reply) > 0 {
		if n, err := s.conn.Read(reply); err != nil || n != len(reply) {
			s.t.Fatalf("command %d: %d of %d bytes in one piece, %v", cmd, n, len(reply), err)
		}
	}
	var got []int
	if k > 0 {
		control, err := unix.ParseSocketControlMessage(oob[:k])
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range control {
			f, err := unix.ParseUnixRights(&control[i])
			if err != nil {
				s.t.Fatal(err)
			}
			got = append(got, f...)
		}
	}
	return reply, got
}

// exact is call for a reply that is known byte for byte.
func (s *initiator) exact(what string, cmd uint16, payload, want []byte, fds ...int) {
	s.t.Helper()
	reply, got := s.call(cmd, payload, fds...)
	if !bytes.Equal(reply, want) || len(got) != 0 {
		s.t.Fatalf("%s: reply % x with %d descriptors, must be % x", what, reply, len(got), want)
	}
}

func words(v ...any) []byte {
	var b []byte
	for _, v := range v {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	return b
}

// read is a REGION_READ: its reply repeats the request's head.
func (s *initiator) read(region uint32, off uint64, n uint32) []byte {
	s.t.Helper()
	head := words(off, region, n)
	reply, _ := s.call(cmdRegionRead, head)
	if len(reply) != len(head)+int(n) || !bytes.Equal(reply[:len(head)], head) {
		s.t.Fatalf("read of %d bytes at %#x: reply % x", n, off, reply)
	}
	return reply[len(head):]
}

func (s *initiator) read4(off uint64) uint32 {
	s.t.Helper()
	return binary.LittleEndian.Uint32(s.read(regionBAR0, off, 4))
}

func (s *initiator) write(region uint32, off uint64, data []byte) {
	s.t.Helper()
	head := words(off, region, uint32(len(data)))
	s.exact("region write", cmdRegionWrite, append(bytes.Clone(head), data...), head)
}

// attach is what spdk_vfio_user_setup does.
func (s *initiator) attach() {
	t := s.t
	version, _ := s.call(cmdVersion, words(uint16(0), uint16(1)))
	if len(version) < 4 || len(version) > 4096 || binary.LittleEndian.Uint16(version) != 0 {
		t.Fatalf("VERSION: reply % x", version)
	}
	info, _ := s.call(cmdGetInfo, words(uint32(16), uint32(0), uint32(0), uint32(0)))
	regions := binary.LittleEndian.Uint32(info[8:])
	if len(info) != 16 || regions < 8 || regions > 10 {
		t.Fatalf("GET_INFO: %d regions in %d bytes", regions, len(info))
	}
	const argsz = 4096 - 32 // the buffer less a region info, and all of it is sent
	for i := range regions {
		request := make([]byte, argsz)
		copy(request, words(uint32(argsz), uint32(0), i))
		reply, fds := s.call(cmdRegionInfo, request)
		if i == regionBAR0 {
			s.mapDoorbells(reply, fds)
			continue
		}
		if len(reply) != 32 || len(fds) != 0 || binary.LittleEndian.Uint32(reply[8:]) != i || binary.LittleEndian.Uint32(reply[12:]) != 0 {
			t.Fatalf("GET_REGION_INFO %d: reply % x with %d descriptors", i, reply, len(fds))
		}
	}
	for i := range spdkPool {
		s.exact("DMA_MAP", cmdDMAMap, s.mapping(i), nil, s.files[i])
	}
}

func (s *initiator) mapDoorbells(reply []byte, fds []int) {
	const readWriteMmapCaps = 15
	want := append(words(uint32(64), uint32(readWriteMmapCaps), uint32(regionBAR0), uint32(32), uint64(16<<10), uint64(0)),
		words(uint16(1), uint16(1), uint32(0), uint32(1), uint32(0), uint64(0x1000), uint64(0x1000))...)
	if !bytes.Equal(reply, want) || len(fds) != 1 {
		s.t.Fatalf("GET_REGION_INFO 0: reply % x with %d descriptors, must be % x with one", reply, len(fds), want)
	}
	defer unix.Close(fds[0])
	var err error
	if s.bells, err = unix.Mmap(fds[0], 0x1000, 0x1000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = unix.Munmap(s.bells) })
}

func iova(i int) uint64 { return spdkIOVA + uint64(i)*hugepage }

func (s *initiator) mapping(i int) []byte {
	const readWrite = 3
	return words(uint32(32), uint32(readWrite), uint64(0), iova(i), uint64(hugepage))
}

// newMemory makes the hugepages, or plain memory where there are none.
func (s *initiator) newMemory() {
	for i := range s.files {
		fd, mem, err := memoryFile(unix.MFD_HUGETLB)
		if err != nil {
			if fd, mem, err = memoryFile(0); err != nil {
				s.t.Fatal(err)
			}
		}
		s.files[i], s.memory[i] = fd, mem
		s.t.Cleanup(func() {
			_ = unix.Munmap(mem)
			_ = unix.Close(fd)
		})
	}
}

func memoryFile(flags int) (int, []byte, error) {
	fd, err := unix.MemfdCreate("spdk", unix.MFD_CLOEXEC|flags)
	if err != nil {
		return -1, nil, err
	}
	var mem []byte
	if err = unix.Fallocate(fd, 0, 0, hugepage); err == nil {
		mem, err = unix.Mmap(fd, 0, hugepage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return fd, mem, err
}

func (s *initiator) bytes(at uint64, n int) []byte {
	off := at - spdkIOVA
	return s.memory[off/hugepage][off%hugepage:][:n]
}

// enable is the beginning of SPDK's state machine, up to CSTS.RDY.
func (s *initiator) enable() {
	t := s.t
	command := binary.LittleEndian.Uint16(s.read(regionConfig, 4, 2))
	s.write(regionConfig, 4, words(command|0x404))
	capability := spec.Cap(binary.LittleEndian.Uint64(s.read(regionBAR0, spec.RegCAP, 8)))
	if capability.DSTRD() != 0 || capability.MPSMin() != 0 || capability.MQES() < 255 {
		t.Fatalf("CAP is %#x", uint64(capability))
	}
	if v := s.read4(spec.RegVS); v < 0x10000 {
		t.Fatalf("VS is %#x", v)
	}
	if cc, csts := s.read4(spec.RegCC), s.read4(spec.RegCSTS); cc&1 != 0 || csts&1 != 0 {
		t.Fatalf("CC is %#x and CSTS %#x before it was enabled", cc, csts)
	}
	s.queues[0] = &spdkQueue{size: 256, sq: iova(0), cq: iova(0) + 0x4000, phase: 1}
	s.write(regionBAR0, spec.RegASQ, words(s.queues[0].sq))
	s.write(regionBAR0, spec.RegACQ, words(s.queues[0].cq))
	s.write(regionBAR0, spec.RegAQA, words(uint32(0x00ff00ff)))
	s.write(regionBAR0, spec.RegCC, words(uint32(0x00460001)))
	s.until("CSTS.RDY", func() bool { return s.read4(spec.RegCSTS) == 1 })
}

func (s *initiator) until(what string, done func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			s.t.Fatalf("no end of waiting for %s", what)
		}
	}
}

// submit puts a command into a queue and writes the mapped doorbell.
func (s *initiator) submit(q *spdkQueue, e spec.SubmissionEntry) uint16 {
	q.cid++
	e.CID = q.cid
	e.Put(s.bytes(q.sq+64*uint64(q.tail), 64))
	q.tail = (q.tail + 1) % q.size
	dma.Store32(s.bells, 8*int(q.id), uint32(q.tail))
	return q.cid
}

// completion polls for the next one.
func (s *initiator) completion(q *spdkQueue) (c spec.CompletionEntry) {
	s.t.Helper()
	b := s.bytes(q.cq+16*uint64(q.head), 16)
	s.until("a completion", func() bool { return dma.Load64(b, 8)>>48&1 == q.phase })
	c.SetWords(dma.Load64(b, 0), dma.Load64(b, 8))
	if q.head++; q.head == q.size {
		q.head, q.phase = 0, q.phase^1
	}
	dma.Store32(s.bells, 8*int(q.id)+4, uint32(q.head))
	return c
}

func (s *initiator) do(q *spdkQueue, what string, e spec.SubmissionEntry) spec.CompletionEntry {
	s.t.Helper()
	cid := s.submit(q, e)
	c := s.completion(q)
	if c.CID != cid || !c.Status.OK() {
		s.t.Fatalf("%s: command %d completes as %d with %v", what, cid, c.CID, c.Status)
	}
	return c
}

// identify is what SPDK asks before it has a controller and its namespace.
func (s *initiator) identify() {
	admin, data := s.queues[0], iova(0)+0x10000
	ask := func(cns, nsid uint32) []byte {
		s.do(admin, "Identify", spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: nsid, CDW10: cns, PRP1: data})
		return s.bytes(data, 4096)
	}
	id := ask(spec.CNSController, 0)
	if sqes, cqes := id[512]&0xf, id[513]&0xf; sqes != 6 || cqes != 4 {
		s.t.Fatalf("queue entries of 2^%d and 2^%d bytes", sqes, cqes)
	}
	s.do(admin, "Set Features, number of queues", spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatNumberOfQueues, CDW11: 0})
	if list := ask(spec.CNSActiveNamespaces, 0); binary.LittleEndian.Uint32(list) != 1 {
		s.t.Fatalf("active namespaces % x", list[:8])
	}
	if ns := ask(spec.CNSNamespace, 1); binary.LittleEndian.Uint64(ns) != 64<<20/512 {
		s.t.Fatalf("namespace of %d blocks", binary.LittleEndian.Uint64(ns))
	}
	if d := ask(spec.CNSDescriptors, 1); d[1] == 0 {
		s.t.Fatal("no descriptor of the namespace")
	}
	s.do(admin, "Set Features, events", spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatAsyncEvents, CDW11: 0x1f})
	for range 4 {
		s.submit(admin, spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	}
}

// inputOutput makes a queue pair as SPDK does, writes 128 KiB that lie in both hugepages, and
// reads them back.
func (s *initiator) inputOutput() {
	admin := s.queues[0]
	q := &spdkQueue{id: 1, size: 256, sq: iova(1), cq: iova(1) + 0x4000, phase: 1}
	s.queues[1] = q
	s.do(admin, "Create I/O Completion Queue", spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 255<<16 | 1, CDW11: 1})
	s.do(admin, "Create I/O Submission Queue", spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 255<<16 | 1, CDW11: 1<<16 | 1})
	const size, pages = 128 << 10, 32
	transfer := func(op uint8, lba uint64, at uint64) spec.SubmissionEntry {
		list := iova(0) + 0x20000
		for p := 1; p < pages; p++ {
			binary.LittleEndian.PutUint64(s.bytes(list+8*uint64(p-1), 8), at+uint64(p)*4096)
		}
		e := spec.SubmissionEntry{Opcode: op, NSID: 1, PRP1: at, PRP2: list, CDW12: size/512 - 1}
		e.SetLBA(lba)
		return e
	}
	// Half of it lies at the end of the first page, half of it behind the queues.
	const half = size / 2
	from := iova(1) - half
	spread := func() (a, b []byte) { return s.bytes(from, half), s.bytes(iova(1)+0x10000, half) }
	place := func(e spec.SubmissionEntry) spec.SubmissionEntry {
		for p := pages / 2; p < pages; p++ {
			binary.LittleEndian.PutUint64(s.bytes(e.PRP2+8*uint64(p-1), 8), iova(1)+0x10000+uint64(p-pages/2)*4096)
		}
		return e
	}
	for round := range 130 { // more commands than the queue has entries
		a, b := spread()
		for i := range a {
			a[i], b[i] = byte(i*7+round), byte(i*11+round)
		}
		wantA, wantB := bytes.Clone(a), bytes.Clone(b)
		lba := uint64(round * size / 512)
		s.do(q, "Write", place(transfer(spec.NVMWrite, lba, from)))
		clear(a)
		clear(b)
		s.do(q, "Read", place(transfer(spec.NVMRead, lba, from)))
		if !bytes.Equal(a, wantA) || !bytes.Equal(b, wantB) {
			s.t.Fatalf("round %d: read what was not written", round)
		}
	}
	s.do(q, "Flush", spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1})
}

// detach is nvme_ctrlr_destruct and spdk_vfio_user_release.
func (s *initiator) detach() {
	admin := s.queues[0]
	s.do(admin, "Delete I/O Submission Queue", spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 1})
	s.do(admin, "Delete I/O Completion Queue", spec.SubmissionEntry{Opcode: spec.AdminDeleteCQ, CDW10: 1})
	s.write(regionBAR0, spec.RegCC, words(uint32(0x00464001)))
	s.until("the shutdown", func() bool { return s.read4(spec.RegCSTS)>>2&3 == 2 })
	for i := range spdkPool {
		request := words(uint32(24), uint32(0), iova(i), uint64(hugepage))
		s.exact("DMA_UNMAP", cmdDMAUnmap, request, request, s.files[i])
	}
	_ = s.conn.Close()
}

// TestSPDKInitiator plays SPDK's initiator from its first message to its last, twice
// against the same controller. SPDK opens the file cntrl in a folder that it is given.
func TestSPDKInitiator(t *testing.T) {
	holdings.CheckLeaks(t)
	ram, err := block.Memory(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	ctrl, err := nvme.New(nvme.Config{Namespaces: []nvme.Namespace{{Backend: ram}}, Doorbells: nvme.Mmap})
	if err != nil {
		t.Fatal(err)
	}
	defer ctrl.Close()
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	ep, err := eng.Register(filepath.Join(t.TempDir(), "cntrl"), ctrl)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	for range 2 {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: ep.Path(), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		s := &initiator{t: t, conn: conn}
		s.newMemory()
		s.attach()
		s.enable()
		s.identify()
		s.inputOutput()
		s.detach()
		s.until("the session to end", func() bool { return !ep.Connected() })
	}
}
