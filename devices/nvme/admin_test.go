package nvme

import (
	"strings"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// adminGuest is a guest with admin queue and a page for data.
func adminGuest(t *testing.T, r rig) (*guest, uint64) {
	g := newGuest(t, r)
	g.enable()
	return g, g.alloc(3)
}

func TestIdentifyController(t *testing.T) {
	for _, mode := range []DoorbellMode{Trap, Shadow, Mmap} {
		file, _ := fileBackend(t, 1<<20)
		g, data := adminGuest(t, rig{mode: mode, backends: []block.Backend{memory(t, 1<<20), file}, queues: 4})
		// The page lies across two, so PRP2 is used.
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: data + 512, PRP2: data + pageSize})
		var id spec.IdentifyController
		id.Get(g.bytes(data+512, spec.IdentifySize))
		if id.Serial != "test" || id.Model != defaultModel || id.Firmware != defaultFW {
			t.Errorf("named %q %q %q", id.Serial, id.Model, id.Firmware)
		}
		if !strings.HasPrefix(id.SubNQN, "nqn.2014-08.org.nvmexpress:uuid:") || len(id.SubNQN) != 32+36 {
			t.Errorf("subsystem %q", id.SubNQN)
		}
		if id.Version != spec.Version2_0 || g.read32(spec.RegVS) != id.Version || id.ControllerType != 1 {
			t.Errorf("version %#x, type %d", id.Version, id.ControllerType)
		}
		if id.MDTS != 8 || id.SQES != 0x66 || id.CQES != 0x44 || id.Namespaces != MaxNamespaces || id.AERL != 3 {
			t.Errorf("limits: MDTS %d SQES %#x CQES %#x NN %d AERL %d", id.MDTS, id.SQES, id.CQES, id.Namespaces, id.AERL)
		}
		if got, want := id.OACS&spec.OACSDoorbellBuffer != 0, mode == Shadow; got != want {
			t.Errorf("%v: Doorbell Buffer Config offered: %v", mode, got)
		}
		if id.VWC != spec.VWCPresent|spec.VWCFlushBroadcast {
			t.Errorf("VWC %#x with a file behind a namespace", id.VWC)
		}
	}
}

func TestIdentifyNamespaces(t *testing.T) {
	g, data := adminGuest(t, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 2<<20), memory(t, 4<<20)}, blocks: 4096})
	identify := func(cns, nsid uint32) spec.Status {
		return g.do(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: cns, NSID: nsid, PRP1: data}).Status
	}
	page := g.bytes(data, pageSize)
	eui, nguid, uuids := map[[8]byte]bool{}, map[[16]byte]bool{}, map[[16]byte]bool{}
	for nsid := uint32(1); nsid <= 3; nsid++ {
		if st := identify(spec.CNSNamespace, nsid); !st.OK() {
			t.Fatal(st)
		}
		var ns spec.IdentifyNamespace
		ns.Get(page)
		if want := uint64(256) << (nsid - 1); ns.Size != want || ns.Capacity != want || ns.BlockSize() != 4096 {
			t.Errorf("namespace %d: %d of %d blocks of %d bytes", nsid, ns.Capacity, ns.Size, ns.BlockSize())
		}
		if st := identify(spec.CNSDescriptors, nsid); !st.OK() {
			t.Fatal(st)
		}
		var d spec.NamespaceDescriptors
		d.Get(page)
		if d.EUI64 != ns.EUI64 || d.NGUID != ns.NGUID {
			t.Errorf("namespace %d has two sets of identifiers", nsid)
		}
		eui[d.EUI64], nguid[d.NGUID], uuids[d.UUID] = true, true, true
	}
	if len(eui) != 3 || len(nguid) != 3 || len(uuids) != 3 || eui[[8]byte{}] || nguid[[16]byte{}] || uuids[[16]byte{}] {
		t.Error("identifiers are not unique")
	}
	if st := identify(spec.CNSActiveNamespaces, 1); !st.OK() {
		t.Fatal(st)
	}
	if ids := spec.NamespaceList(page); len(ids) != 2 || ids[0] != 2 || ids[1] != 3 {
		t.Errorf("active after 1: %v", ids)
	}
}

func TestIdentifyRefuses(t *testing.T) {
	g, data := adminGuest(t, rig{})
	for _, c := range []struct {
		name      string
		cns, nsid uint32
		csi       uint32
		want      spec.Status
	}{
		{"namespace 0", spec.CNSNamespace, 0, 0, spec.InvalidNamespaceOrFormat},
		{"namespace beyond the last", spec.CNSNamespace, MaxNamespaces + 1, 0, spec.InvalidNamespaceOrFormat},
		{"descriptors of none", spec.CNSDescriptors, 9, 0, spec.InvalidField},
		{"list after the last possible", spec.CNSActiveNamespaces, spec.BroadcastNSID - 1, 0, spec.InvalidNamespaceOrFormat},
		{"unknown structure", 0x7f, 1, 0, spec.InvalidField},
		{"unknown command set", spec.CNSCommandSetController, 0, 2, spec.InvalidField},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := g.do(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: c.cns, NSID: c.nsid, CDW11: c.csi << 24, PRP1: data}).Status
			if st != c.want|spec.StatusDNR {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
}

func TestAdminCommandRefusals(t *testing.T) {
	g, data := adminGuest(t, rig{mode: Trap})
	for _, c := range []struct {
		name string
		e    spec.SubmissionEntry
		want spec.Status
	}{
		{"unknown opcode", spec.SubmissionEntry{Opcode: 0xc7}, spec.InvalidOpcode},
		{"vendor opcode", spec.SubmissionEntry{Opcode: 0xc0}, spec.InvalidOpcode},
		{"SGL", spec.SubmissionEntry{Opcode: spec.AdminIdentify, Flags: 0x40, CDW10: 1, PRP1: data}, spec.InvalidField},
		{"fused", spec.SubmissionEntry{Opcode: spec.AdminIdentify, Flags: 1, CDW10: 1, PRP1: data}, spec.InvalidField},
		{"data at an odd address", spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: 1, PRP1: data + 2}, spec.InvalidPRPOffset},
		{"second page not aligned", spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: 1, PRP1: data + 4, PRP2: data + 4}, spec.InvalidPRPOffset},
		{"data nowhere", spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: 1, PRP1: 1 << 50}, spec.DataTransferError},
		{"Doorbell Buffer Config without shadow doorbells", spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: data, PRP2: data}, spec.InvalidOpcode},
	} {
		t.Run(c.name, func(t *testing.T) {
			if st := g.do(c.e).Status; st != c.want|spec.StatusDNR {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
}

func TestQueueCreationRules(t *testing.T) {
	g, _ := adminGuest(t, rig{queues: 4})
	at := g.alloc(4)
	g.createQueue(1, 16)
	cq := func(id, size, flags, vector uint32) spec.SubmissionEntry {
		return spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: at, CDW10: id | (size-1)<<16, CDW11: flags | vector<<16}
	}
	sq := func(id, size, flags, cqid uint32) spec.SubmissionEntry {
		return spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: at, CDW10: id | (size-1)<<16, CDW11: flags | cqid<<16}
	}
	unaligned := func(e spec.SubmissionEntry) spec.SubmissionEntry { e.PRP1 += 64; return e }
	del := func(op uint8, id uint32) spec.SubmissionEntry { return spec.SubmissionEntry{Opcode: op, CDW10: id} }
	for _, c := range []struct {
		name string
		e    spec.SubmissionEntry
		want spec.Status
	}{
		{"completion queue 0", cq(0, 16, 3, 1), spec.InvalidQueueID},
		{"completion queue beyond the last", cq(5, 16, 3, 1), spec.InvalidQueueID},
		{"completion queue that exists", cq(1, 16, 3, 1), spec.InvalidQueueID},
		{"completion queue of one entry", cq(2, 1, 3, 1), spec.InvalidQueueSize},
		{"completion queue above MQES", cq(2, 4097, 3, 1), spec.InvalidQueueSize},
		{"completion queue not contiguous", cq(2, 16, 2, 1), spec.InvalidField},
		{"completion queue not aligned", unaligned(cq(2, 16, 3, 1)), spec.InvalidPRPOffset},
		{"vector beyond the last", cq(2, 16, 3, 5), spec.InvalidInterruptVector},
		{"submission queue 0", sq(0, 16, 1, 1), spec.InvalidQueueID},
		{"submission queue beyond the last", sq(5, 16, 1, 1), spec.InvalidQueueID},
		{"submission queue that exists", sq(1, 16, 1, 1), spec.InvalidQueueID},
		{"submission queue of one entry", sq(2, 1, 1, 1), spec.InvalidQueueSize},
		{"submission queue above MQES", sq(2, 4097, 1, 1), spec.InvalidQueueSize},
		{"submission queue not contiguous", sq(2, 16, 0, 1), spec.InvalidField},
		{"submission queue not aligned", unaligned(sq(2, 16, 1, 1)), spec.InvalidPRPOffset},
		{"completion queue 0 for a submission queue", sq(2, 16, 1, 0), spec.InvalidQueueID},
		{"completion queue out of range", sq(2, 16, 1, 9), spec.InvalidQueueID},
		{"completion queue that is not there", sq(2, 16, 1, 3), spec.CompletionQueueInvalid},
		{"delete submission queue 0", del(spec.AdminDeleteSQ, 0), spec.InvalidQueueID},
		{"delete a submission queue that is not there", del(spec.AdminDeleteSQ, 2), spec.InvalidQueueID},
		{"delete completion queue 0", del(spec.AdminDeleteCQ, 0), spec.InvalidQueueID},
		{"delete a completion queue that is not there", del(spec.AdminDeleteCQ, 4), spec.InvalidQueueID},
		{"delete a completion queue in use", del(spec.AdminDeleteCQ, 1), spec.InvalidQueueDeletion},
	} {
		t.Run(c.name, func(t *testing.T) {
			if st := g.do(c.e).Status; st != c.want|spec.StatusDNR {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
}

// A host learns from Identify how large entries are, when the controller is ready already.
func TestEntrySizesAreSetWhenTheControllerIsReady(t *testing.T) {
	g, _ := adminGuest(t, rig{})
	q := g.newQueue(1, 16)
	cq := spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 1 | 15<<16, CDW11: 3}
	sq := spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 1 | 15<<16, CDW11: 1 | 1<<16}
	sizes := func(sqes, cqes uint8) { g.write32(spec.RegCC, uint32(spec.NewCC(true, 0, sqes, cqes))) }
	refused := func(e spec.SubmissionEntry) {
		t.Helper()
		if st := g.do(e).Status; st.Code() != spec.InvalidQueueSize {
			t.Errorf("%v, want %v", st, spec.InvalidQueueSize)
		}
	}
	sizes(0, 0)
	refused(cq)
	sizes(0, 4)
	g.must(cq)
	refused(sq)
	sizes(6, 4)
	g.must(sq)
	if !g.csts().RDY() {
		t.Error("the controller is not ready any more")
	}
}

func TestQueuesCanBeDeletedAndMadeAgain(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		r.queues = 3
		g, q := started(t, r)
		data := g.alloc(1)
		for range 5 {
			if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
				t.Fatal(st)
			}
			g.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 1})
			g.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteCQ, CDW10: 1})
			if g.dbbuf {
				clear(g.bytes(g.shadow, 2*pageSize)) // as a driver does
			}
			q = g.createQueue(1, 8)
		}
	})
}

func TestSharedCompletionQueue(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		second := g.newQueue(2, 32)
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: second.sq, CDW10: 2 | 31<<16, CDW11: 1 | 1<<16})
		data := g.alloc(1)
		for range 40 {
			a := q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
			b := second.submit(rw(spec.NVMRead, 1, 8, 8, data, 0))
			if c := q.result(a); !c.Status.OK() || c.SQID != 1 {
				t.Fatalf("%+v", c)
			}
			if c := q.result(b); !c.Status.OK() || c.SQID != 2 {
				t.Fatalf("%+v", c)
			}
		}
	})
}

func TestNumberOfQueues(t *testing.T) {
	g, _ := adminGuest(t, rig{queues: 4})
	set := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatNumberOfQueues, CDW11: 63 | 63<<16}
	if c := g.must(set); c.DW0 != 3|3<<16 {
		t.Errorf("granted %#x", c.DW0)
	}
	bad := set
	bad.CDW11 = 0xffff
	if st := g.do(bad).Status; st != spec.InvalidField|spec.StatusDNR {
		t.Errorf("65,536 queues: %v", st)
	}
	g.createQueue(1, 16)
	if st := g.do(set).Status; st != spec.CommandSequenceError|spec.StatusDNR {
		t.Errorf("with queues: %v", st)
	}
}
