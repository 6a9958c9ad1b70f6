package bench

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	device "vfiouser/devices/nvme"
	"vfiouser/dma"
	driver "vfiouser/drivers/nvme"
)

// drive is I/O at random on an NVMe device, depth commands of size bytes under way in all.
type drive struct {
	backend     string // null, mem, nbd, cached or direct: a file through or past the page cache
	write       bool
	size, depth int
	set         set

	sequential bool // not at random
	mode       device.DoorbellMode
	queues     int // 0: one
	namespaces int // 0: one
	idle       int // other queues, -1: none, and so it is said
	load       int // percent of the highest rate; 0: as quick as it can be
}

// set says when a case is measured.
type set uint8

const (
	byDefault set = iota
	quick
	full
)

// drives vary one thing at a time.
func drives() (all []drive) {
	add := func(s set, d drive) {
		if d.size == 0 {
			d.size = 4096
		}
		if d.mode == device.Auto {
			d.mode = device.Mmap
		}
		d.set = s
		all = append(all, d)
	}
	one := func(is bool, s, other set) set {
		if is {
			return s
		}
		return other
	}
	for _, backend := range []string{"null", "mem"} {
		for _, depth := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256} {
			s := one(depth == 1 || depth == 32, quick, one(depth == 8 || depth == 128, byDefault, full))
			add(s, drive{backend: backend, depth: depth})
			add(one(s == full, full, one(backend == "mem" && depth == 32, quick, one(depth == 8, full, byDefault))),
				drive{backend: backend, write: true, depth: depth})
		}
	}
	for _, size := range []int{512, 64 << 10, 128 << 10} {
		add(one(size == 128<<10, quick, byDefault), drive{backend: "mem", size: size, depth: 32})
		add(byDefault, drive{backend: "mem", write: true, size: size, depth: 32})
		add(full, drive{backend: "null", size: size, depth: 32})
	}
	for _, write := range []bool{false, true} {
		add(byDefault, drive{backend: "mem", write: write, size: sequentialSize, depth: 16, sequential: true})
	}
	for _, backend := range []string{"cached", "direct"} {
		for _, depth := range []int{1, 32} {
			add(one(backend == "cached" && depth == 32, quick, byDefault), drive{backend: backend, depth: depth})
			add(one(depth == 32, byDefault, full), drive{backend: backend, write: true, depth: depth})
		}
		add(full, drive{backend: backend, size: 128 << 10, depth: 32})
	}
	for _, depth := range []int{1, 32} {
		add(byDefault, drive{backend: "nbd", depth: depth})
		add(full, drive{backend: "nbd", write: true, depth: depth})
	}
	add(full, drive{backend: "nbd", size: nbdLongest, depth: 32})
	for _, mode := range []device.DoorbellMode{device.Shadow, device.Trap} {
		for _, depth := range []int{1, 32} {
			add(one(mode == device.Shadow && depth == 32, quick, byDefault), drive{backend: "mem", depth: depth, mode: mode})
			add(full, drive{backend: "null", depth: depth, mode: mode})
		}
	}
	for _, backend := range []string{"null", "mem"} {
		for _, queues := range []int{1, 8, 32, 128} {
			add(one(backend == "null" || queues == 32, full, byDefault), drive{backend: backend, depth: 128, queues: queues})
		}
	}
	for _, namespaces := range []int{1, 32, 1024} {
		if namespaces < 1024 { // each takes a huge page at least
			add(byDefault, drive{backend: "mem", depth: 128, namespaces: namespaces})
		}
		add(one(namespaces == 32, full, byDefault), drive{backend: "null", depth: 128, namespaces: namespaces})
	}
	for _, idle := range []int{-1, 31, 127} {
		add(one(idle == 31, full, byDefault), drive{backend: "null", depth: 1, idle: idle})
	}
	for _, load := range []int{10, 20, 30, 40, 50, 60, 70, 80, 90} {
		odd := load/10%2 == 1
		add(one(load == 50, quick, one(odd, byDefault, full)), drive{backend: "mem", depth: loadDepth, load: load})
		add(full, drive{backend: "mem", write: true, depth: loadDepth, load: load})
		add(full, drive{backend: "cached", depth: loadDepth, load: load})
	}
	return all
}

func (d drive) op() string {
	if d.write {
		return "write"
	}
	return "read"
}

func (d drive) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nvme/%s/%s", d.backend, d.op())
	if d.sequential {
		b.WriteString("/sequential")
	}
	fmt.Fprintf(&b, "/size=%d/depth=%d", d.size, d.depth)
	if d.mode != device.Mmap {
		fmt.Fprintf(&b, "/doorbells=%v", d.mode)
	}
	for _, axis := range []struct {
		name  string
		value int
	}{{"queues", d.queues}, {"namespaces", d.namespaces}, {"idle-queues", d.idle}, {"load", d.load}} {
		if axis.value != 0 {
			fmt.Fprintf(&b, "/%s=%d", axis.name, max(axis.value, 0))
		}
	}
	return b.String()
}

// oneDoorbell is a doorbell that is trapped, and answered.
var oneDoorbell = message{write: true, size: 4, depth: 1}

// limit is the handing over of commands from core to core, with what a command is about done by
// the other one; where a doorbell is a message for each command, an exchange of those, on one core,
// is quicker than waking another one. A load that is not the highest is not held against anything: what counts is how
// long it takes.
func (d drive) limit() string {
	switch {
	case d.load != 0:
		return ""
	case d.backend == "direct":
		return d.fileIO().String()
	case d.backend == "nbd":
		return d.nbdLimitName()
	case d.mode == device.Trap && d.depth == 1:
		return oneDoorbell.echo().limit()
	}
	return handoverName(d.work(), d.depth)
}

// work is what a command is about, "" if that is nothing, and how it becomes known.
func (d drive) work() string {
	var words []string
	if d.mode == device.Trap {
		words = append(words, "doorbell-message")
	}
	switch d.backend {
	case "mem":
		words = append(words, "memcpy", d.op())
	case "cached":
		words = append(words, "p"+d.op())
	}
	if d.sequential {
		words = append(words, "sequential")
	}
	if d.backend != "null" {
		words = append(words, fmt.Sprintf("size=%d", d.size))
	}
	return strings.Join(words, "/")
}

// handoverLimits are one for each work and depth.
func handoverLimits() (limits []Limit) {
	seen := map[string]bool{}
	for _, d := range drives() {
		name := d.limit()
		if !strings.HasPrefix(name, "handover/") || seen[name] {
			continue
		}
		seen[name] = true
		l := Limit{Name: name, Setup: d.handover}
		if d.backend != "null" {
			l.Bytes = d.size
		}
		limits = append(limits, l)
	}
	return limits
}

func (d drive) handover(env *Env) (Subject, error) {
	h := &handover{depth: d.depth, rings: d.mode == device.Trap}
	if d.backend == "null" {
		return h.subject(env)
	}
	buffers, err := anonymous(env, max(d.size*d.depth, 4096))
	if err != nil {
		return Subject{}, err
	}
	buffer := func(slot int) []byte { return buffers[slot*d.size:][:d.size] }
	if d.backend == "cached" {
		f := d.fileIO()
		fd, err := f.open(env)
		if err != nil {
			return Subject{}, err
		}
		h.next = randomBlocks(uint64(env.fileSize() / d.size))
		h.work = func(place uint64, slot int) error { return f.access(fd, place, buffer(slot)) }
		return h.subject(env)
	}
	storage, err := anonymous(env, env.storage())
	if err != nil {
		return Subject{}, err
	}
	places := uint64(env.storage() / d.size)
	if h.next = randomBlocks(places); d.sequential {
		at := uint64(0)
		h.next = func() uint64 { at++; return at % places }
	}
	h.fetch = func(place uint64) {
		const lines = 256 // bytes: from there on the processor goes ahead by itself
		for at := int(place) * d.size; at < int(place)*d.size+lines; at += 64 {
			dma.PrefetchWrite(&storage[at])
		}
	}
	h.work = func(place uint64, slot int) error {
		if block := storage[int(place)*d.size:][:d.size]; d.write {
			copy(block, buffer(slot))
		} else {
			copy(buffer(slot), block)
		}
		return nil
	}
	return h.subject(env)
}

// fileIO is the same on the bare file.
func (d drive) fileIO() fileIO {
	return fileIO{direct: d.backend == "direct", write: d.write, size: d.size, depth: d.depth}
}

// nvmeCases are I/O on an NVMe device, with a core for the device and one for its driver.
func nvmeCases() (cases []Case) {
	for _, d := range drives() {
		cases = append(cases, Case{
			Name: d.String(), Quick: d.set == quick, Full: d.set == full, Bytes: d.size, Limit: d.limit(),
			Setup: func(env *Env) (Subject, error) {
				_, s, err := newDrive(env, d)
				return s, err
			},
		})
	}
	return cases
}

func newDrive(env *Env, d drive) (*nvmeRig, Subject, error) {
	n := max(d.namespaces, 1)
	var backends []string
	switch d.backend {
	case "null":
		for range n {
			backends = append(backends, fmt.Sprintf("null:%d", env.storage()/n))
		}
	case "mem":
		for range n {
			backends = append(backends, fmt.Sprintf("mem:%d", env.storage()/n))
		}
	case "nbd":
		if err := spawnNBD(env, env.storage()); err != nil {
			return nil, Subject{}, err
		}
		backends = append(backends, "nbd+unix:///?socket="+url.QueryEscape(filepath.Join(env.Dir, nbdSocket)))
	default:
		path, err := newFile(env)
		if err != nil {
			return nil, Subject{}, err
		}
		text := "file:" + path
		if d.backend == "direct" {
			text += ",direct"
		}
		backends = append(backends, text)
	}
	r, err := newNVMe(env, d.mode, min(d.size, 4096), backends...)
	if err != nil {
		return nil, Subject{}, err
	}
	for range d.idle {
		if _, err := r.newQueue(1, 0); err != nil {
			return nil, Subject{}, err
		}
	}
	var queues []*driver.Queue
	for range max(d.queues, 1) {
		q, err := r.newQueue(d.depth/max(d.queues, 1), d.size)
		if err != nil {
			return nil, Subject{}, err
		}
		queues = append(queues, q)
	}
	l := newLoad(d.post(r, queues), queues...)
	if d.load != 0 {
		s, err := loadSubject(env, l, d.load)
		return r, s, err
	}
	s := Subject{Run: l.run, UnderWay: d.depth}
	if d.depth == 1 && d.idle == 0 {
		s.Latency = l.halfLoad
	}
	return r, s, nil
}

// post is how a command is submitted: at random places of all namespaces, or in order.
func (d drive) post(r *nvmeRig, queues []*driver.Queue) func(queue int, tag uint16) error {
	submit := (*driver.Queue).Read
	if d.write {
		submit = (*driver.Queue).Write
	}
	blocks := uint64(d.size / r.ns.BlockSize())
	all := r.ctrl.Namespaces()
	type place struct {
		ns  *driver.Namespace
		lba uint64
	}
	places := make([]place, 1<<16)
	for i := range places {
		ns := all[rand.IntN(len(all))]
		places[i] = place{ns, rand.Uint64N(ns.Blocks()/blocks) * blocks}
		if d.sequential {
			places[i] = place{r.ns, uint64(i) * blocks % r.ns.Blocks()}
		}
	}
	next := 0
	return func(queue int, tag uint16) error {
		p := &places[next&(len(places)-1)]
		next++
		return submit(queues[queue], tag, p.ns, p.lba, uint32(blocks))
	}
}

// fileSize is that of files, bytes: small enough to stay in the page cache, and no case is about
// what lies behind that of a disk.
func (e *Env) fileSize() int { return e.storage() / 2 }

// newFile makes a file that is on the disk.
func newFile(env *Env) (string, error) {
	path := filepath.Join(env.Dir, "file")
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i >> 12)
	}
	for range env.fileSize() / len(chunk) {
		if _, err := file.Write(chunk); err != nil {
			return "", err
		}
	}
	return path, unix.Fdatasync(int(file.Fd()))
}
