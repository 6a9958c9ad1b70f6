package nvmeconformance

import (
	"bytes"
	"encoding/binary"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// Registers that package spec has no name for (Base 2.0, 3.1.3).
const (
	regBPRSEL = 0x44
	regBPMBL  = 0x48
	regCMBMSC = 0x50
	regCMBSTS = 0x58
	regNSSD   = 0x64
	regPMREnd = 0xe1c
)

// registerChecks are those of the registers' values and accesses.
func registerChecks() []Check {
	var checks []Check
	add := func(section, rule string, run func(*T)) {
		checks = append(checks, Check{section, rule, run, true})
	}
	const cap, vs = "Base 2.0, 3.1.3.1", "Base 2.0, 3.1.3.2"
	add(cap, "CAP.MQES allows queues of two entries", func(t *T) {
		if t.cap.MQES() < 1 {
			t.errorf("MQES is %d", t.cap.MQES())
		}
	})
	add(cap, "CAP.TO is not 0", func(t *T) {
		if t.cap.TO() == 0 {
			t.errorf("TO is 0: no time to become ready")
		}
	})
	add(cap, "the command sets include that for NVM", func(t *T) {
		if t.cap&(spec.CapCSSNVM|spec.CapCSSAll) == 0 {
			t.errorf("CAP is %#x", uint64(t.cap))
		}
	})
	add(cap, "CAP.CSS has no reserved bit", func(t *T) { equal(t, "CSS bits 5:1", uint64(t.cap)>>38&0x1f, 0) })
	add(cap, "CAP.MPSMIN is not above CAP.MPSMAX", func(t *T) {
		if t.cap.MPSMin() > t.cap.MPSMax() {
			t.errorf("MPSMIN %d, MPSMAX %d", t.cap.MPSMin(), t.cap.MPSMax())
		}
	})
	add(cap, "reserved bits 23:19 read 0", func(t *T) { equal(t, "bits 23:19", uint64(t.cap)>>19&0x1f, 0) })
	add(cap, "reserved bits 63:61 read 0", func(t *T) { equal(t, "bits 63:61", uint64(t.cap)>>61, 0) })
	add(cap, "one access of 8 bytes and two of 4 read the same", func(t *T) {
		equal(t, "CAP in halves", uint64(t.read32(0))|uint64(t.read32(4))<<32, t.read64(0))
	})
	add(cap, "CAP cannot be written by 8 bytes", func(t *T) {
		t.write64(spec.RegCAP, ^t.read64(spec.RegCAP))
		equal(t, "CAP", t.read64(spec.RegCAP), uint64(t.cap))
	})
	add(cap, "CAP cannot be written by 4 bytes", func(t *T) {
		t.write32(spec.RegCAP, 0)
		t.write32(spec.RegCAP+4, 0)
		equal(t, "CAP", t.read64(spec.RegCAP), uint64(t.cap))
	})
	add(cap, "a controller of version 2.0 announces when it is ready (CRMS)", func(t *T) {
		t.need(t.read32(spec.RegVS) >= spec.Version2_0, "version 2.0")
		equal(t, "CAP.CRMS.CRWMS", uint64(t.cap)>>59&1, 1)
	})

	add(vs, "VS is a version of the specification", func(t *T) {
		switch v := t.read32(spec.RegVS); v {
		case 0x10000, 0x10100, 0x10200, 0x10201, 0x10300, 0x10400, 0x20000, 0x20100, 0x20200, 0x20300:
		default:
			t.errorf("VS is %#x", v)
		}
	})
	add(vs, "VS cannot be written", func(t *T) {
		v := t.read32(spec.RegVS)
		t.write32(spec.RegVS, ^v)
		equal(t, "VS", t.read32(spec.RegVS), v)
	})

	const intms = "Base 2.0, 3.1.3.3"
	add(intms, "INTMS is 0 after a reset", func(t *T) { equal(t, "INTMS", t.read32(spec.RegINTMS), 0) })
	add("Base 2.0, 3.1.3.4", "INTMC is 0 after a reset", func(t *T) { equal(t, "INTMC", t.read32(spec.RegINTMC), 0) })
	add(intms, "bits written to INTMS are set, those of 0 stay", func(t *T) {
		t.write32(spec.RegINTMS, 0x5)
		t.write32(spec.RegINTMS, 0x80000000)
		equal(t, "INTMS", t.read32(spec.RegINTMS), 0x80000005)
		t.write32(spec.RegINTMC, 0xffffffff)
	})
	add("Base 2.0, 3.1.3.4", "bits written to INTMC are cleared, those of 0 stay", func(t *T) {
		t.write32(spec.RegINTMS, 0xff)
		t.write32(spec.RegINTMC, 0x0f)
		equal(t, "INTMS", t.read32(spec.RegINTMS), 0xf0)
		t.write32(spec.RegINTMC, 0xffffffff)
		equal(t, "INTMS", t.read32(spec.RegINTMS), 0)
	})
	add("Base 2.0, 3.1.3.4", "INTMC reads the mask", func(t *T) {
		t.write32(spec.RegINTMS, 0x1234)
		equal(t, "INTMC", t.read32(spec.RegINTMC), 0x1234)
		t.write32(spec.RegINTMC, 0xffffffff)
	})

	const cc = "Base 2.0, 3.1.3.5"
	add(cc, "CC is 0 after a function reset", func(t *T) {
		t.functionReset()
		equal(t, "CC", t.read32(spec.RegCC), 0)
	})
	for _, f := range []struct {
		name  string
		value uint32
	}{{"IOSQES", 6 << 16}, {"IOCQES", 4 << 20}} {
		add(cc, "CC."+f.name+" can be written and read while the controller is disabled", func(t *T) {
			t.write32(spec.RegCC, f.value)
			equal(t, "CC", t.read32(spec.RegCC), f.value)
			t.write32(spec.RegCC, 0)
		})
	}
	add(cc, "reserved bits of CC read 0", func(t *T) {
		t.write32(spec.RegCC, 0xfe00000e)
		equal(t, "reserved bits", t.read32(spec.RegCC)&0xfe00000e, 0)
		t.write32(spec.RegCC, 0)
	})
	add("Base 2.0, 3.1.3.6", "CSTS is 0 while the controller is disabled", func(t *T) {
		equal(t, "CSTS but for NSSRO", t.csts()&^spec.CSTSNSSRO, 0)
	})
	add("Base 2.0, 3.1.3.6", "reserved bits of CSTS read 0", func(t *T) {
		equal(t, "bits 31:7", uint32(t.csts())>>7, 0)
	})
	add("Base 2.0, 3.1.3.6", "CSTS.RDY cannot be written", func(t *T) {
		t.write32(spec.RegCSTS, 0xf)
		equal(t, "CSTS but for NSSRO", t.csts()&^spec.CSTSNSSRO, 0)
	})
	add("Base 2.0, 3.1.3.7", "NSSR reads 0", func(t *T) { equal(t, "NSSR", t.read32(spec.RegNSSR), 0) })

	const aqa = "Base 2.0, 3.1.3.8"
	add(aqa, "AQA can be written and read", func(t *T) {
		for _, v := range []uint32{0x0fff0fff, 0x00ff00ff, 0x00010002, 0} {
			t.write32(spec.RegAQA, v)
			equal(t, "AQA", t.read32(spec.RegAQA), v)
		}
	})
	add(aqa, "reserved bits of AQA read 0", func(t *T) {
		t.write32(spec.RegAQA, 0xffffffff)
		equal(t, "AQA", t.read32(spec.RegAQA), 0x0fff0fff)
		t.write32(spec.RegAQA, 0)
	})
	for _, r := range []struct {
		section, name string
		off           uint64
	}{{"Base 2.0, 3.1.3.9", "ASQ", spec.RegASQ}, {"Base 2.0, 3.1.3.10", "ACQ", spec.RegACQ}} {
		add(r.section, r.name+" takes one access of 8 bytes", func(t *T) {
			t.write64(r.off, 0x123456789abcd000)
			equal(t, r.name, t.read64(r.off), 0x123456789abcd000)
		})
		add(r.section, r.name+" takes two accesses of 4 bytes in either order", func(t *T) {
			t.write64(r.off, 0)
			t.write32(r.off+4, 0x11223344)
			t.write32(r.off, 0x55667000)
			equal(t, r.name, t.read64(r.off), 0x1122334455667000)
			t.write32(r.off, 0x8000)
			t.write32(r.off+4, 1)
			equal(t, r.name, t.read64(r.off), 0x100008000)
		})
		add(r.section, "each half of "+r.name+" leaves the other one alone", func(t *T) {
			t.write64(r.off, 0x2222222211111000)
			t.write32(r.off, 0x33333000)
			equal(t, r.name, t.read64(r.off), 0x2222222233333000)
			t.write32(r.off+4, 0x44444444)
			equal(t, r.name, t.read64(r.off), 0x4444444433333000)
		})
		add(r.section, "reserved bits 11:0 of "+r.name+" read 0", func(t *T) {
			t.write64(r.off, 0x1fff)
			equal(t, r.name, t.read64(r.off), 0x1000)
		})
		add(r.section, r.name+" is read in halves", func(t *T) {
			t.write64(r.off, 0xaabbccdd11223000)
			equal(t, "low half", t.read32(r.off), 0x11223000)
			equal(t, "high half", t.read32(r.off+4), 0xaabbccdd)
		})
	}
	return append(checks, absentRegisterChecks()...)
}

// absentRegisterChecks are those of registers that read 0 unless CAP announces them.
func absentRegisterChecks() (checks []Check) {
	for _, r := range []struct {
		section, name string
		off, size     uint64
		bit           int // of CAP; -1: none
	}{
		{"Base 2.0, 3.1.3.11", "CMBLOC", spec.RegCMBLOC, 4, 57},
		{"Base 2.0, 3.1.3.12", "CMBSZ", spec.RegCMBSZ, 4, 57},
		{"Base 2.0, 3.1.3.13", "BPINFO", spec.RegBPINFO, 4, 45},
		{"Base 2.0, 3.1.3.14", "BPRSEL", regBPRSEL, 4, 45},
		{"Base 2.0, 3.1.3.15", "BPMBL", regBPMBL, 8, 45},
		{"Base 2.0, 3.1.3.16", "CMBMSC", regCMBMSC, 8, 57},
		{"Base 2.0, 3.1.3.17", "CMBSTS", regCMBSTS, 4, 57},
		{"Base 2.0, 3.1.3.20", "NSSD", regNSSD, 4, 46},
		{"Base 2.0, 3.1.3.22", "PMRCAP and those behind it", spec.RegPMRCAP, regPMREnd - spec.RegPMRCAP, 56},
	} {
		checks = append(checks, Check{r.section, r.name + " reads 0 where CAP does not announce it", func(t *T) {
			t.need(t.cap>>r.bit&1 == 0, "controller without it")
			t.zero(r.name, t.readBytes(r.off, int(r.size)), 0, int(r.size))
		}, true}, Check{r.section, r.name + " cannot be written where CAP does not announce it", func(t *T) {
			t.need(t.cap>>r.bit&1 == 0, "controller without it")
			for off := r.off; off < r.off+r.size; off += 4 {
				t.write32(off, 0xffffffff)
			}
			t.zero(r.name, t.readBytes(r.off, int(r.size)), 0, int(r.size))
		}, true})
	}
	crto := func(rule string, run func(*T, uint32)) Check {
		return Check{"Base 2.0, 3.1.3.21", rule, func(t *T) { run(t, t.read32(spec.RegCRTO)) }, true}
	}
	return append(checks,
		crto("CRTO reads 0 where CAP.CRMS is 0", func(t *T, v uint32) {
			t.need(t.cap>>59&3 == 0, "controller without CRMS")
			equal(t, "CRTO", v, 0)
		}),
		crto("CRTO.CRWMT is at least CAP.TO", func(t *T, v uint32) {
			t.need(t.cap>>59&1 != 0, "CAP.CRMS.CRWMS")
			if v&0xffff < uint32(t.cap.TO()) && t.cap.TO() != 0xff {
				t.errorf("CRWMT is %d, TO %d", v&0xffff, t.cap.TO())
			}
		}),
		crto("CRTO.CRIMT is not above CRTO.CRWMT", func(t *T, v uint32) {
			t.need(t.cap>>60&1 != 0, "CAP.CRMS.CRIMS")
			if v>>16 > v&0xffff {
				t.errorf("CRTO is %#x", v)
			}
		}),
		Check{"Base 2.0, 3.1.3", "reserved registers read 0", func(t *T) {
			equal(t, "18h", t.read32(0x18), 0)
			b := t.readBytes(0x6c, 0xe00-0x6c)
			t.zero("from 6Ch on", b, 0, len(b))
		}, true},
		Check{"PCIe transport 1.0, 3.1", "BAR0 has room for the doorbells that there are", func(t *T) {
			region, err := t.dev.Region(t.ctx, bar0)
			if err != nil {
				t.fatalf("%v", err)
			}
			defer region.Close()
			if region.Size < spec.RegDoorbells+uint64(4*t.cap.DoorbellStride()) || region.Size&(region.Size-1) != 0 {
				t.errorf("BAR0 has %d bytes, the doorbells are %d apart", region.Size, t.cap.DoorbellStride())
			}
		}, true},
		Check{"PCIe transport 1.0, 3.8.1", "the class code is that of an NVMe I/O controller", func(t *T) {
			b := make([]byte, 3)
			if err := t.dev.ReadRegion(t.ctx, client.RegionConfig, 9, b); err != nil {
				t.fatalf("%v", err)
			}
			if !bytes.Equal(b, []byte{2, 8, 1}) {
				t.errorf("class code % x, must be 02 08 01", b)
			}
		}, true},
		Check{"PCIe transport 1.0, 3.1.2", "reading a doorbell does no harm", func(t *T) {
			t.readBytes(spec.RegDoorbells, 4)
			t.readBytes(spec.RegDoorbells+4, 8)
			equal(t, "CSTS but for NSSRO", t.csts()&^spec.CSTSNSSRO, 0)
		}, true},
		Check{"vfio-user, VFIO_USER_DEVICE_RESET", "a function reset clears AQA, ASQ, ACQ and the interrupt mask", func(t *T) {
			t.write32(spec.RegAQA, 0x00ff00ff)
			t.write64(spec.RegASQ, 0x1000)
			t.write64(spec.RegACQ, 0x2000)
			t.write32(spec.RegINTMS, 0xff)
			t.functionReset()
			b := t.readBytes(spec.RegAQA, spec.RegCMBLOC-spec.RegAQA)
			t.zero("from AQA to ACQ", b, 0, len(b))
			equal(t, "INTMS", t.read32(spec.RegINTMS), 0)
		}, true},
	)
}

// functionReset resets the PCI function and enables it again.
func (t *T) functionReset() {
	if err := t.dev.Reset(t.ctx); err != nil {
		t.fatalf("VFIO_USER_DEVICE_RESET: %v", err)
	}
	if err := t.dev.WriteRegion(t.ctx, client.RegionConfig, 4, binary.LittleEndian.AppendUint16(nil, 0x406)); err != nil {
		t.fatalf("%v", err)
	}
}
