package hostile

import (
	"fmt"
	"testing"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// newMessageRig is a rig whose memory has no descriptor: the server asks for it.
func (a *attack) newMessageRig(size uint64) *rig {
	a.Helper()
	g := &rig{raw: a.session(), ram: a.newRAM(size), bells: -1}
	g.serve = g.answer
	g.call(codec.CmdDMAMap, mapping(ramBase, size, 0, readWrite))
	return g
}

// answer serves a command of the server as it should be.
func (g *rig) answer(h codec.Header, payload []byte) {
	g.a.Helper()
	var m codec.DMAAccess
	var reply []byte
	switch h.Command {
	case codec.CmdDMARead:
		if err := m.DecodeReadRequest(payload); err != nil {
			g.a.Fatal(err)
		}
		m.Data = make([]byte, m.Count)
		g.ram.read(m.Addr-ramBase, m.Data)
		reply = m.Append(nil)
	case codec.CmdDMAWrite:
		if err := m.DecodeWriteRequest(payload); err != nil {
			g.a.Fatal(err)
		}
		g.ram.write(m.Addr-ramBase, m.Data)
		reply = m.AppendHead(nil)
	default:
		g.a.Fatalf("the server sends %v", h.Command)
	}
	_ = g.respond(h, 0, 0, reply) // the server may have had enough
}

// respond answers a command of the server.
func (c *raw) respond(h codec.Header, flags codec.Flags, errno uint32, payload []byte) error {
	h.Flags, h.Errno, h.Size = codec.FlagReply|flags, errno, uint32(codec.HeaderSize+len(payload))
	return c.send(append(h.Append(nil), payload...))
}

func TestMessagesAnsweredWrong(t *testing.T) {
	l := newImpatientLab(t, nvme.Trap, impatience)
	for _, c := range []struct {
		name   string
		answer func(g *rig, h codec.Header, payload []byte)
	}{
		{"never", func(*rig, codec.Header, []byte) {}},
		{"with another id", func(g *rig, h codec.Header, payload []byte) {
			h.ID++
			_ = g.respond(h, 0, 0, payload)
		}},
		{"with another command", func(g *rig, h codec.Header, payload []byte) {
			h.Command = codec.CmdGetInfo
			_ = g.respond(h, 0, 0, payload)
		}},
		{"twice", func(g *rig, h codec.Header, payload []byte) {
			g.answer(h, payload)
			g.answer(h, payload)
		}},
		{"without payload", func(g *rig, h codec.Header, payload []byte) { _ = g.respond(h, 0, 0, nil) }},
		{"with less data", func(g *rig, h codec.Header, payload []byte) {
			m := codec.DMAAccess{Addr: ramBase, Count: 3, Data: []byte{1, 2, 3}}
			_ = g.respond(h, 0, 0, m.Append(nil))
		}},
		{"with more data", func(g *rig, h codec.Header, payload []byte) {
			m := codec.DMAAccess{Addr: ramBase, Count: 1 << 20, Data: make([]byte, 1<<20)}
			_ = g.respond(h, 0, 0, m.Append(nil))
		}},
		{"with a count of 2^64-1", func(g *rig, h codec.Header, payload []byte) {
			m := codec.DMAAccess{Addr: ramBase, Count: 1<<64 - 1}
			_ = g.respond(h, 0, 0, m.AppendHead(nil))
		}},
		{"with another address", func(g *rig, h codec.Header, payload []byte) {
			var m codec.DMAAccess
			_ = m.DecodeReadRequest(payload[:codec.DMAAccessSize])
			m.Addr, m.Data = m.Addr+pageSize, make([]byte, m.Count)
			_ = g.respond(h, 0, 0, m.Append(nil))
		}},
		{"with half a reply", func(g *rig, h codec.Header, payload []byte) {
			h.Flags = codec.FlagReply
			_ = g.send(h.Append(nil)[:codec.HeaderSize/2])
			g.serve = nil
		}},
	} {
		l.attack(t, c.name, func(a *attack) {
			g := a.newMessageRig(16 << 20)
			g.serve = func(h codec.Header, payload []byte) { c.answer(g, h, payload) }
			// The admin queue alone makes the server ask.
			admin := g.newPair(0, 64)
			g.write32(spec.RegAQA, uint32(spec.NewAQA(63, 63)))
			g.write64(spec.RegASQ, ramBase+admin.sq)
			g.write64(spec.RegACQ, ramBase+admin.cq)
			g.write32(spec.RegCC, enabled)
			g.until("the controller is ready", func() bool { return g.csts().RDY() })
			for range 4 {
				g.admin = admin
				admin.put(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: ramBase + 8<<20})
			}
			g.ring(0, false, admin.tail)
			g.endedServing()
		})
	}
}

// endedServing is ended for a client that still answers the server.
func (g *rig) endedServing() {
	g.a.Helper()
	for {
		if _, _, err := g.reply(); err != nil {
			g.in = nil
			break
		}
	}
	g.ended()
}

func TestMessagesRefused(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		for _, errno := range []uint32{0, 14, 1<<32 - 1} {
			l.attack(t, fmt.Sprintf("data, with errno %d", errno), func(a *attack) {
				g := a.newMessageRig(16 << 20)
				g.start()
				p := g.pair(1, 64)
				data := g.ram.alloc(64 << 10)
				g.serve = func(h codec.Header, payload []byte) {
					var m codec.DMAAccess
					if h.Command == codec.CmdDMARead {
						_ = m.DecodeReadRequest(payload)
					} else {
						_ = m.DecodeWriteRequest(payload)
					}
					if m.Addr >= ramBase+data && m.Addr < ramBase+data+64<<10 {
						_ = g.respond(h, codec.FlagError, errno, nil)
						return
					}
					g.answer(h, payload)
				}
				for i := range 20 {
					e := transfer([]uint8{spec.NVMRead, spec.NVMWrite}[i%2], memNS+uint32(i/2%2), 0, 8, ramBase+data, 0)
					if st := p.status(e); st.Code() != spec.DataTransferError {
						a.Errorf("%v", st)
					}
				}
			})
		}
		l.attack(t, "everything, with an errno", func(a *attack) {
			g := a.newMessageRig(16 << 20)
			g.start()
			p := g.pair(1, 64)
			g.serve = func(h codec.Header, _ []byte) { _ = g.respond(h, codec.FlagError, 5, nil) }
			for range 100 {
				p.ring()
				g.admin.ring()
				p.tail, g.admin.tail = (p.tail+1)%64, (g.admin.tail+1)%64
			}
			g.alive()
		})
	})
}

// fetched is a rig of which the server has asked for data and has no answer.
func (a *attack) fetched() *rig {
	a.Helper()
	g := a.newMessageRig(16 << 20)
	g.start()
	p := g.pair(1, 1024)
	asked := false
	serve := g.serve
	g.serve = func(h codec.Header, payload []byte) {
		var m codec.DMAAccess
		if h.Command == codec.CmdDMAWrite && m.DecodeWriteRequest(payload) == nil && m.Addr >= ramBase+8<<20 {
			asked = true
			return
		}
		serve(h, payload)
	}
	p.flood(memNS, ramBase+8<<20)
	g.until("the server asks", func() bool { return asked })
	return g
}

func TestMessagesAndDisconnect(t *testing.T) {
	forModes(t, []nvme.DoorbellMode{nvme.Trap, nvme.Shadow}, func(t *testing.T, l *lab) {
		l.attack(t, "while the server waits for data", func(a *attack) {
			for range 10 {
				a.fetched().close()
			}
		})
		l.attack(t, "while there is I/O, 20 times", func(a *attack) {
			for range 20 {
				g := a.newMessageRig(16 << 20)
				g.start()
				p := g.pair(1, 256)
				p.flood(memNS, ramBase+8<<20)
				for range 5 {
					if err := g.pump(); err != nil {
						a.Fatal(err)
					}
				}
				g.close()
			}
		})
	})
}

// What the client asks for while the server waits for data has to wait, too. The time-out
// ends it.
func TestMessagesThatAreNotAnswered(t *testing.T) {
	for _, mode := range []nvme.DoorbellMode{nvme.Trap, nvme.Shadow} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newImpatientLab(t, mode, impatience)
			for _, c := range []struct {
				name string
				ask  func(g *rig)
			}{
				{"silence", func(*rig) {}},
				{"unmap", func(g *rig) { g.must(g.message(codec.CmdDMAUnmap, 0, unmapping(ramBase, 16<<20))) }},
				{"reset of the device", func(g *rig) { g.must(g.message(codec.CmdReset, 0, nil)) }},
				{"reset of the controller", func(g *rig) { g.write32(spec.RegCC, 0) }},
			} {
				l.attack(t, c.name, func(a *attack) {
					g := a.fetched()
					c.ask(g)
					g.endedServing()
				})
			}
		})
	}
}
