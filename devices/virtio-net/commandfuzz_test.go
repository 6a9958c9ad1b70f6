package virtionet

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/fuzz/choice"
	"vfiouser/link"
)

// FuzzCommands is a driver that sends commands, most of which are valid, and frames that arrive
// in between. A model says what each command is answered, and where each frame goes.
//
//fuzz:covers devices/virtio-net/control.go devices/virtio-net/commands.go devices/virtio-net/filter.go devices/virtio-net/hash.go devices/virtio-net/toeplitz.go devices/virtio-net/spec
func FuzzCommands(f *testing.F) {
	choice.Corpus(f, 500, 600)
	f.Fuzz(func(t *testing.T, program []byte) {
		src := choice.FromBytes(program)
		cfg := Config{Link: link.Null(), Pairs: 1 + src.Intn(4), MAC: []byte{2, 0, 0, 0, 0, 1}}
		must(t, cfg.complete())
		features := cfg.offered() &^ (uint64(src.Intn(2)) * src.Uint64() & src.Uint64())
		features &^= spec.Unmet(features)
		m := &commandModel{t: t, src: src, c: newCard(&cfg), features: features}
		port, err := cfg.Link.Attach(m.c)
		must(t, err)
		m.c.port = port
		for _, p := range m.c.pairs {
			p.rx.started.Store(true)
		}
		m.c.flows.clear()
		m.c.coalescing.reset()
		m.c.control.reset(features)
		m.reset()
		for steps := 0; steps < 200 && src.More(); steps++ {
			if src.Odds(3) {
				m.frame()
			} else {
				m.command()
			}
		}
		for i := range m.enabled {
			m.c.coalescer(i).stop()
		}
		must(t, port.Close())
	})
}

// commandModel is what commands have set, as lists and maps.
type commandModel struct {
	t        *testing.T
	src      *choice.Source
	c        *card
	features uint64

	modes    [6]bool
	own      string
	unicast  []string
	multi    []string
	vlans    map[uint16]bool
	pairs    int
	types    uint32 // of hash
	key      []byte
	hashes   bool
	table    []uint16 // of RSS, nil without
	other    uint16   // queue of what has no hash
	offloads uint64
	enabled  map[int]spec.Coalesce // by queue
}

// reset is what a driver finds (5.1.5, 5.1.6.5).
func (m *commandModel) reset() {
	m.own, m.vlans, m.pairs = string(m.c.mac[:]), map[uint16]bool{}, 1
	m.modes[0] = m.features&spec.FeatureCtrlRx != 0
	m.offloads = m.features & spec.GuestOffloads
	m.enabled = map[int]spec.Coalesce{}
	for i := range 2 * len(m.c.pairs) {
		if m.src.Bool() {
			m.enabled[i] = spec.Coalesce{}
			m.c.startCoalescing(i, new(virtio.Queue))
		}
	}
	if m.src.Bool() { // some modes: promiscuous as it is, nothing of them is seen
		for mode, bits := 0, m.src.Uint8()&^1; mode < 6; mode++ {
			b := []byte{spec.ClassRx, uint8(mode), bits >> mode & 1}
			if got, want := m.c.control.execute(b), m.answer(b); !bytes.Equal(got, want) {
				m.t.Fatalf("% x: % x, want % x", b, got, want)
			}
		}
	}
}

// command sends one, and compares the answer.
func (m *commandModel) command() {
	data := m.compose()
	chain := virtqueue.Chain{ReadableLen: uint32(len(data))}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+m.src.Intn(40))
		if m.src.Odds(4) {
			n = len(rest)
		}
		chain.Readable = append(chain.Readable, rest[:n:n])
		rest = rest[n:]
	}
	room := choice.Pick(m.src, 1, 1, 9, 0, 4, 20)
	writable := bytes.Repeat([]byte{0xee}, room)
	for rest := writable; len(rest) > 0; {
		n := 1 + m.src.Intn(len(rest))
		chain.Writable = append(chain.Writable, rest[:n:n])
		rest = rest[n:]
	}
	chain.WritableLen = uint32(room)
	got := m.c.control.serve(context.Background(), &chain)
	var want []byte
	if room > 0 { // without room for the answer nothing is done
		want = m.answer(data)
	}
	if int(got) != len(want) {
		m.t.Fatalf("% x: %d bytes are written, want %d", clip(data), got, len(want))
	}
	all := append(slices.Clip(want[:min(room, len(want))]), bytes.Repeat([]byte{0xee}, max(0, room-len(want)))...)
	if !bytes.Equal(writable, all) {
		m.t.Fatalf("% x: % x is written, want % x", clip(data), writable, all)
	}
	if got := m.c.control.offloads; got != m.offloads {
		m.t.Fatalf("offloads %#x, want %#x", got, m.offloads)
	}
	if got := m.c.config.MAC; string(got[:]) != m.own && m.features&spec.FeatureCtrlMACAddr != 0 {
		m.t.Fatalf("the address is % x, want % x", got, m.own)
	}
}

// compose makes a command, valid more often than not.
func (m *commandModel) compose() []byte {
	src := m.src
	type kind struct{ class, number uint8 }
	k := choice.Pick(src,
		kind{spec.ClassRx, spec.RxPromisc}, kind{spec.ClassRx, uint8(src.Intn(6))}, kind{spec.ClassRx, uint8(src.Intn(6))},
		kind{spec.ClassMAC, spec.MACTableSet}, kind{spec.ClassMAC, spec.MACTableSet}, kind{spec.ClassMAC, spec.MACAddrSet},
		kind{spec.ClassVLAN, spec.VLANAdd}, kind{spec.ClassVLAN, spec.VLANAdd}, kind{spec.ClassVLAN, spec.VLANDel},
		kind{spec.ClassAnnounce, spec.AnnounceAck}, kind{spec.ClassMQ, spec.MQPairsSet}, kind{spec.ClassMQ, spec.MQRSSConfig},
		kind{spec.ClassMQ, spec.MQHashConfig}, kind{spec.ClassGuestOffloads, spec.GuestOffloadsSet},
		kind{spec.ClassNotfCoal, uint8(src.Intn(4))}, kind{src.Uint8(), src.Uint8()},
	)
	var data []byte
	switch k.class {
	case spec.ClassRx:
		data = []byte{uint8(src.Intn(2))}
		if k.number == spec.RxPromisc && src.Odds(2) {
			data[0] = 0 // with it there is nothing else to see
		}
	case spec.ClassMAC:
		if k.number == spec.MACAddrSet {
			data = []byte(m.address())
			break
		}
		t := spec.MACTable{Unicast: m.addresses(), Multicast: m.addresses()}
		data = t.Append(nil)
	case spec.ClassVLAN:
		data = le16(choice.Pick(src, 0, 1, 2, 3, 4094, 4095, uint16(src.Edge(4096))))
	case spec.ClassMQ:
		switch queue := func() uint16 { return uint16(src.Intn(len(m.c.pairs))) }; k.number {
		case spec.MQPairsSet:
			data = le16(m.edge(1 + queue()))
		case spec.MQRSSConfig:
			c := spec.RSSConfig{HashTypes: m.hashTypes(), Unclassified: m.edge(queue()), MaxTx: m.edge(1 + queue()), Key: m.hashKey()}
			c.Table = make([]uint16, 1<<src.Intn(9))
			for i := range c.Table[:min(len(c.Table), 8)] {
				c.Table[i] = queue()
			}
			c.Table[0] = m.edge(c.Table[0])
			data = c.Append(nil)
		case spec.MQHashConfig:
			c := spec.HashConfig{HashTypes: m.hashTypes(), Key: m.hashKey()}
			data = c.Append(nil)
		}
	case spec.ClassGuestOffloads:
		data = le64(src.Uint64() & spec.GuestOffloads)
	case spec.ClassNotfCoal:
		c := spec.CoalesceVQ{Queue: uint16(src.Intn(2*len(m.c.pairs) + 1)), Coalesce: spec.Coalesce{MaxPackets: src.Uint32(), MaxUsecs: src.Uint32()}}
		var b [spec.CoalesceVQSize]byte
		switch c.Put(b[:]); k.number {
		case spec.CoalVQSet:
			data = b[:]
		case spec.CoalVQGet:
			data = b[:4]
		default:
			data = b[4:]
		}
	default:
		data = src.Bytes(src.Intn(20))
	}
	return m.spoil(append([]byte{k.class, k.number}, data...))
}

// spoil makes a command too short, too long, or another one, now and then.
func (m *commandModel) spoil(data []byte) []byte {
	if !m.src.Odds(6) {
		return data
	}
	switch m.src.Intn(4) {
	case 0:
		return data[:m.src.Intn(len(data))]
	case 1:
		return append(data, m.src.Bytes(1+m.src.Intn(4))...)
	case 2:
		return append(data, make([]byte, maxCommand-len(data)+m.src.Intn(3))...)
	default:
		data[m.src.Intn(min(len(data), 16))] = m.src.Uint8()
		return data
	}
}

// address is one of a few, so that frames meet what was set.
func (m *commandModel) address() string {
	b := []byte{choice.Pick[byte](m.src, 2, 2, 3), 0, 0, 0, 0, uint8(m.src.Intn(4))}
	if m.src.Odds(8) {
		return "\xff\xff\xff\xff\xff\xff"
	}
	return string(b)
}

func (m *commandModel) addresses() (list [][6]byte) {
	n := m.src.Intn(5)
	if m.src.Odds(10) {
		n = maxAddresses - 1 + m.src.Intn(4)
	}
	for i := range n {
		mac := [6]byte([]byte(m.address()))
		if i > 4 {
			mac[4] = byte(i)
		}
		list = append(list, mac)
	}
	return list
}

// edge is a number of pairs, or of one, seldom one that may be out of range.
func (m *commandModel) edge(n uint16) uint16 {
	if m.src.Odds(16) {
		return uint16(m.src.Edge(uint64(len(m.c.pairs))))
	}
	return n
}

func (m *commandModel) hashKey() []byte {
	if m.src.Odds(16) {
		return m.src.Bytes(38 + m.src.Intn(5))
	}
	return m.src.Bytes(m.src.Intn(41))
}

func (m *commandModel) hashTypes() uint32 {
	if m.src.Odds(3) {
		return spec.HashAll
	}
	return m.src.Uint32() & choice.Pick[uint32](m.src, spec.HashAll, spec.HashAll, ^uint32(0))
}
