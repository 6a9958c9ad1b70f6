package virtionet

import (
	"encoding/binary"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// le16 and le64 are values as commands have them.
func le16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// ok executes a command that must succeed.
func (g *guest) ok(class, number uint8, data []byte) {
	g.t.Helper()
	if ack, _ := g.command(class, number, data, 0); ack != spec.AckOK {
		g.t.Fatalf("command %d.%d: %d", class, number, ack)
	}
}

func TestCommandsAreCheckedAndNeverCrash(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{Pairs: 2})
	g := r.attach(options{features: all})
	table := func(entries ...uint16) *spec.RSSConfig {
		return &spec.RSSConfig{HashTypes: spec.HashAll, Table: entries, MaxTx: 2, Key: microsoftKey}
	}
	rss := func(change func(*spec.RSSConfig)) []byte {
		c := table(0, 1, 0, 1)
		change(c)
		return c.Append(nil)
	}
	hash := func(types uint32, key []byte) []byte {
		return (&spec.HashConfig{HashTypes: types, Key: key}).Append(nil)
	}
	addresses := (&spec.MACTable{Unicast: [][6]byte{mac(7)}, Multicast: [][6]byte{{1, 0, 0x5e, 0, 0, 1}}}).Append(nil)
	group := [6]byte{3}
	own := mac(5)
	for _, c := range []struct {
		name          string
		class, number uint8
		data          []byte
		want          uint8
	}{
		{"promiscuous", spec.ClassRx, spec.RxPromisc, []byte{1}, spec.AckOK},
		{"neither on nor off", spec.ClassRx, spec.RxPromisc, []byte{2}, spec.AckErr},
		{"no byte", spec.ClassRx, spec.RxPromisc, nil, spec.AckErr},
		{"two bytes", spec.ClassRx, spec.RxPromisc, []byte{1, 1}, spec.AckErr},
		{"last mode", spec.ClassRx, spec.RxNoBcast, []byte{0}, spec.AckOK},
		{"unknown mode", spec.ClassRx, spec.RxNoBcast + 1, []byte{0}, spec.AckErr},
		{"addresses", spec.ClassMAC, spec.MACTableSet, addresses, spec.AckOK},
		{"addresses cut short", spec.ClassMAC, spec.MACTableSet, addresses[:len(addresses)-1], spec.AckErr},
		{"one table of addresses", spec.ClassMAC, spec.MACTableSet, addresses[:10], spec.AckErr},
		{"2^32-1 addresses", spec.ClassMAC, spec.MACTableSet, []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, spec.AckErr},
		{"own address", spec.ClassMAC, spec.MACAddrSet, own[:], spec.AckOK},
		{"address of a group", spec.ClassMAC, spec.MACAddrSet, group[:], spec.AckErr},
		{"address cut short", spec.ClassMAC, spec.MACAddrSet, own[:5], spec.AckErr},
		{"VLAN", spec.ClassVLAN, spec.VLANAdd, le16(4095), spec.AckOK},
		{"VLAN deleted", spec.ClassVLAN, spec.VLANDel, le16(4095), spec.AckOK},
		{"no such VLAN", spec.ClassVLAN, spec.VLANAdd, le16(4096), spec.AckErr},
		{"announced", spec.ClassAnnounce, spec.AnnounceAck, nil, spec.AckOK},
		{"announced, with data", spec.ClassAnnounce, spec.AnnounceAck, []byte{1}, spec.AckErr},
		{"pairs", spec.ClassMQ, spec.MQPairsSet, le16(2), spec.AckOK},
		{"no pairs", spec.ClassMQ, spec.MQPairsSet, le16(0), spec.AckErr},
		{"too many pairs", spec.ClassMQ, spec.MQPairsSet, le16(3), spec.AckErr},
		{"RSS", spec.ClassMQ, spec.MQRSSConfig, rss(func(*spec.RSSConfig) {}), spec.AckOK},
		{"RSS with a short key", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.Key = c.Key[:16] }), spec.AckOK},
		{"RSS with a long key", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.Key = append(c.Key, 1) }), spec.AckErr},
		{"RSS to a queue that is not there", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.Table[3] = 2 }), spec.AckErr},
		{"RSS to the last number", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.Unclassified = 0xffff }), spec.AckErr},
		{"RSS with an unknown hash", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.HashTypes = 1 << 9 }), spec.AckErr},
		{"RSS without transmit queues", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.MaxTx = 0 }), spec.AckErr},
		{"RSS with the longest table", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.Table = make([]uint16, tableSize) }), spec.AckOK},
		{"RSS with a longer table", spec.ClassMQ, spec.MQRSSConfig, rss(func(c *spec.RSSConfig) { c.Table = make([]uint16, 2*tableSize) }), spec.AckErr},
		{"hash", spec.ClassMQ, spec.MQHashConfig, hash(spec.HashAll, microsoftKey), spec.AckOK},
		{"unknown hash", spec.ClassMQ, spec.MQHashConfig, hash(1<<31, microsoftKey), spec.AckErr},
		{"offloads", spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64(spec.FeatureGuestCSUM), spec.AckOK},
		{"offloads that are not offloads", spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64(spec.FeatureMAC), spec.AckErr},
		{"offloads cut short", spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64(0)[:7], spec.AckErr},
		{"coalescing", spec.ClassNotfCoal, spec.CoalRxSet, make([]byte, spec.CoalesceSize), spec.AckOK},
		{"coalescing cut short", spec.ClassNotfCoal, spec.CoalTxSet, make([]byte, spec.CoalesceSize-1), spec.AckErr},
		{"coalescing of a queue", spec.ClassNotfCoal, spec.CoalVQSet, append(le16(3), make([]byte, 10)...), spec.AckOK},
		{"coalescing of the control queue", spec.ClassNotfCoal, spec.CoalVQSet, append(le16(4), make([]byte, 10)...), spec.AckErr},
		{"coalescing of no queue", spec.ClassNotfCoal, spec.CoalVQSet, append(le16(0xffff), make([]byte, 10)...), spec.AckErr},
		{"unknown class", 200, 0, []byte{1}, spec.AckErr},
		{"unknown command", spec.ClassMQ, 200, le16(1), spec.AckErr},
	} {
		if ack, _ := g.command(c.class, c.number, c.data, 0); ack != c.want {
			t.Errorf("%s: %d, want %d", c.name, ack, c.want)
		}
	}
	for _, c := range []struct {
		name     string
		data     []byte
		writable int
	}{
		{"nothing", nil, 1},
		{"class only", []byte{spec.ClassRx}, 1},
		{"more than any command has", make([]byte, maxCommand+1), 1},
		{"no room for the answer", []byte{spec.ClassRx, spec.RxPromisc, 1}, 0},
	} {
		if ack, _ := g.rawCommand(c.data, c.writable); ack != 0xff && ack != spec.AckErr {
			t.Errorf("%s: %d", c.name, ack)
		}
	}
	// The card still works.
	g.ok(spec.ClassRx, spec.RxPromisc, []byte{1})
	data := frameOf(1, 100)
	g.pairs[0].send(vnet.Header{}, data)
	equal(t, r.link.Sent(), data)
}

func TestCommandsNeedTheirFeatures(t *testing.T) {
	r := newRig(t, Config{Pairs: 2})
	g := r.attach(options{features: spec.FeatureCtrlVQ})
	for _, c := range []struct {
		class, number uint8
		data          []byte
	}{
		{spec.ClassRx, spec.RxPromisc, []byte{1}},
		{spec.ClassRx, spec.RxAllUni, []byte{1}},
		{spec.ClassMAC, spec.MACTableSet, make([]byte, 8)},
		{spec.ClassMAC, spec.MACAddrSet, []byte{2, 0, 0, 0, 0, 1}},
		{spec.ClassVLAN, spec.VLANAdd, le16(1)},
		{spec.ClassAnnounce, spec.AnnounceAck, nil},
		{spec.ClassMQ, spec.MQPairsSet, le16(1)},
		{spec.ClassMQ, spec.MQRSSConfig, (&spec.RSSConfig{Table: []uint16{0}, MaxTx: 1}).Append(nil)},
		{spec.ClassMQ, spec.MQHashConfig, (&spec.HashConfig{}).Append(nil)},
		{spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64(0)},
		{spec.ClassNotfCoal, spec.CoalTxSet, make([]byte, spec.CoalesceSize)},
		{spec.ClassNotfCoal, spec.CoalRxSet, make([]byte, spec.CoalesceSize)},
		{spec.ClassNotfCoal, spec.CoalVQSet, make([]byte, spec.CoalesceVQSize)},
	} {
		if ack, _ := g.command(c.class, c.number, c.data, 0); ack != spec.AckErr {
			t.Errorf("command %d.%d: %d", c.class, c.number, ack)
		}
	}
}

func TestFiltersSetByCommands(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	g := r.attach(options{features: all})
	p := g.pairs[0]
	other, tagged := mac(9), packet{vlan: 7, payload: 60}.frame()
	toOther := packet{dst: string(other[:]), payload: 60}.frame()
	last := packet{payload: 61}.frame()
	// What passes comes before last.
	arrive := func(want ...[]byte) {
		t.Helper()
		r.link.Arrive(linktest.Frame{Data: toOther}, linktest.Frame{Data: tagged}, linktest.Frame{Data: last})
		equal(t, p.receive(len(want)+1), append(want, last)...)
	}
	arrive(toOther, tagged)
	g.ok(spec.ClassRx, spec.RxPromisc, []byte{0})
	arrive()
	g.ok(spec.ClassVLAN, spec.VLANAdd, le16(7))
	arrive(tagged)
	g.ok(spec.ClassVLAN, spec.VLANDel, le16(7))
	g.ok(spec.ClassMAC, spec.MACTableSet, (&spec.MACTable{Unicast: [][6]byte{other}}).Append(nil))
	arrive(toOther)
	g.ok(spec.ClassMAC, spec.MACTableSet, (&spec.MACTable{}).Append(nil))
	g.ok(spec.ClassRx, spec.RxAllUni, []byte{1})
	arrive(toOther)
	g.ok(spec.ClassRx, spec.RxAllUni, []byte{0})
	last = toOther
	g.ok(spec.ClassMAC, spec.MACAddrSet, other[:])
	r.link.Arrive(linktest.Frame{Data: packet{payload: 60}.frame()}, linktest.Frame{Data: toOther})
	equal(t, p.receive(1), toOther)
	if filtered := r.card.Stats()[0].Receive.Filtered; filtered != 6 {
		t.Errorf("%d frames were filtered", filtered)
	}
}
