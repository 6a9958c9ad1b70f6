package nvmeconformance

import (
	"bytes"
	"fmt"
)

const identifyNamespace = "NVM 1.0, 4.1.5.1"

// identifyNamespaceChecks are those of what Identify Namespace says of every active namespace.
func identifyNamespaceChecks() (checks []Check) {
	add := func(rule string, run func(t *T, ns *namespace, d []byte)) {
		checks = append(checks, Check{identifyNamespace, "Identify Namespace, " + rule, func(t *T) {
			t.need(len(t.namespaces) > 0, "namespace")
			for i := range t.namespaces {
				ns := &t.namespaces[i]
				before := len(t.failures)
				run(t, ns, ns.data)
				for j := before; j < len(t.failures); j++ {
					t.failures[j] = fmt.Sprintf("namespace %d: %s", ns.id, t.failures[j])
				}
			}
		}, false})
	}
	add("NSZE is not 0", func(t *T, _ *namespace, d []byte) { equal(t, "no NSZE", t.u64(d, 0) == 0, false) })
	add("NSZE >= NCAP >= NUSE", func(t *T, _ *namespace, d []byte) {
		if t.u64(d, 0) < t.u64(d, 8) || t.u64(d, 8) < t.u64(d, 16) {
			t.errorf("NSZE %d, NCAP %d, NUSE %d", t.u64(d, 0), t.u64(d, 8), t.u64(d, 16))
		}
	})
	add("NCAP is NSZE without thin provisioning", func(t *T, _ *namespace, d []byte) {
		if d[24]&1 == 0 {
			equal(t, "NCAP", t.u64(d, 8), t.u64(d, 0))
		}
	})
	add("the format in FLBAS is one of those that there are", func(t *T, _ *namespace, d []byte) {
		if f := d[26]&0xf | d[26]>>1&0x30; f > d[25] {
			t.errorf("format %d, NLBAF %d", f, d[25])
		}
	})
	add("every format has blocks of at least 512 bytes", func(t *T, _ *namespace, d []byte) {
		for i := range int(d[25]) + 1 {
			if lbads := d[128+4*i+2]; lbads < 9 {
				t.errorf("format %d has LBADS %d", i, lbads)
			}
		}
	})
	add("formats beyond NLBAF are 0", func(t *T, _ *namespace, d []byte) { t.zero("formats", d, 128+4*(int(d[25])+1), 384) })
	add("formats have no reserved bit", func(t *T, _ *namespace, d []byte) {
		for i := range int(d[25]) + 1 {
			equal(t, "bits 31:26", t.u32(d, 128+4*i)>>26, 0)
		}
	})
	add("MC and FLBAS say how metadata goes if the format has some", func(t *T, ns *namespace, d []byte) {
		if ns.metadata == 0 {
			return
		}
		bit := uint8(2)
		if d[26]&0x10 != 0 {
			bit = 1
		}
		equal(t, "support in MC", d[27]&bit != 0, true)
	})
	add("DPS is enabled only where DPC has it", func(t *T, _ *namespace, d []byte) {
		if kind := d[29] & 7; kind != 0 && d[28]>>(kind-1)&1 == 0 {
			t.errorf("DPS %#x, DPC %#x", d[29], d[28])
		}
	})
	add("protection information has room in the metadata", func(t *T, ns *namespace, d []byte) {
		if d[29]&7 != 0 && ns.metadata < 8 {
			t.errorf("DPS %#x with %d bytes of metadata", d[29], ns.metadata)
		}
	})
	add("NVMCAP is NCAP in bytes", func(t *T, ns *namespace, d []byte) {
		if v := t.u64(d, 48); v != 0 && v < t.u64(d, 8)*uint64(ns.blockSize) {
			t.errorf("NVMCAP %d, NCAP %d blocks of %d bytes", v, t.u64(d, 8), ns.blockSize)
		}
		equal(t, "upper half", t.u64(d, 56), 0)
	})
	add("an identifier that is unique in the world: EUI64, NGUID or UUID", func(t *T, ns *namespace, d []byte) {
		if bytes.Equal(d[104:128], make([]byte, 24)) && t.descriptors(ns.id)[3] == nil {
			t.errorf("none")
		}
	})
	add("EUI64 and NGUID differ between namespaces", func(t *T, ns *namespace, d []byte) {
		for _, other := range t.namespaces {
			if other.id != ns.id && !bytes.Equal(d[104:128], make([]byte, 24)) && bytes.Equal(d[104:128], other.data[104:128]) {
				t.errorf("the same as namespace %d", other.id)
			}
		}
	})
	add("is the same each time", func(t *T, ns *namespace, d []byte) {
		now := t.identify(0, ns.id)
		copy(now[16:24], d[16:24]) // NUSE follows what is written
		equal(t, "the same", bytes.Equal(now, d), true)
	})
	add("NMIC, RESCAP and FPI have no reserved bit", func(t *T, _ *namespace, d []byte) {
		equal(t, "NMIC bits 7:2", d[30]>>2, 0)
		if d[32]&0x80 == 0 {
			equal(t, "FPI without support", d[32], 0)
		}
	})
	add("RESCAP is there with reservations", func(t *T, _ *namespace, d []byte) { equal(t, "RESCAP", d[31] != 0, t.oncs(5)) })
	add("NSFEAT has no reserved bit", func(t *T, _ *namespace, d []byte) { equal(t, "bits 7:6", d[24]>>6, 0) })
	add("MC and DPC have no reserved bit", func(t *T, _ *namespace, d []byte) {
		equal(t, "MC bits 7:2", d[27]>>2, 0)
		equal(t, "DPC bits 7:5", d[28]>>5, 0)
	})
	add("DLFEAT has no reserved value", func(t *T, _ *namespace, d []byte) {
		if d[33]&7 > 2 || d[33]>>5 != 0 {
			t.errorf("DLFEAT is %#x", d[33])
		}
	})
	add("the preferred granularities are there if NSFEAT says so", func(t *T, _ *namespace, d []byte) {
		if d[24]&0x10 == 0 {
			t.zero("NPWG to NOWS", d, 64, 74)
		}
	})
	add("NAWUN is not below AWUN", func(t *T, _ *namespace, d []byte) {
		if d[24]&2 != 0 && t.u16(d, 34) < t.u16(t.identity, 526) {
			t.errorf("NAWUN %d, AWUN %d", t.u16(d, 34), t.u16(t.identity, 526))
		}
	})
	add("the atomic write units are there only if NSFEAT says so", func(t *T, _ *namespace, d []byte) {
		if d[24]&2 == 0 {
			t.zero("NAWUN to NACWU", d, 34, 40)
		}
	})
	add("NABSN, NABO and NABSPF fit together", func(t *T, _ *namespace, d []byte) {
		if n := t.u16(d, 40); n != 0 && t.u16(d, 34) > n || t.u16(d, 42) > t.u16(d, 40) {
			t.errorf("NAWUN %d, NABSN %d, NABO %d", t.u16(d, 34), n, t.u16(d, 42))
		}
	})
	add("MSSRL and MCL are there with Copy", func(t *T, _ *namespace, d []byte) {
		equal(t, "MSSRL", t.u16(d, 74) != 0, t.oncs(8))
		equal(t, "MCL", t.u32(d, 76) != 0, t.oncs(8))
	})
	add("MCL is not below MSSRL", func(t *T, _ *namespace, d []byte) {
		if t.u32(d, 76) < uint32(t.u16(d, 74)) {
			t.errorf("MCL %d, MSSRL %d", t.u32(d, 76), t.u16(d, 74))
		}
	})
	add("reserved bytes 82 to 91 are 0", func(t *T, _ *namespace, d []byte) { t.zero("data", d, 82, 92) })
	add("reserved bytes 96 to 98 are 0", func(t *T, _ *namespace, d []byte) { t.zero("data", d, 96, 99) })
	add("ANAGRPID is 0 without ANA", func(t *T, _ *namespace, d []byte) {
		if t.identity[76]&8 == 0 {
			t.zero("ANAGRPID", d, 92, 96)
		}
	})
	add("NVMSETID and ENDGID are 0 without sets and groups", func(t *T, _ *namespace, d []byte) {
		if !t.ctratt(2) {
			t.zero("NVMSETID", d, 100, 102)
		}
		if !t.ctratt(4) {
			t.zero("ENDGID", d, 102, 104)
		}
	})
	add("NSATTR has no reserved bit", func(t *T, _ *namespace, d []byte) { equal(t, "bits 7:1", d[99]>>1, 0) })
	return checks
}

// descriptors are the namespace identification descriptors by type.
func (t *T) descriptors(nsid uint32) map[uint8][]byte {
	d := t.identify(3, nsid)
	found := map[uint8][]byte{}
	for len(d) >= 4 && d[1] != 0 {
		n := int(d[1])
		if 4+n > len(d) {
			t.fatalf("a descriptor of %d bytes reaches over the end", n)
		}
		if found[d[0]] != nil {
			t.errorf("two descriptors of type %d", d[0])
		}
		found[d[0]] = d[4 : 4+n]
		if d[2] != 0 || d[3] != 0 {
			t.errorf("reserved bytes of a descriptor are not 0")
		}
		d = d[4+n:]
	}
	t.zero("what is behind the descriptors", d, 0, len(d))
	return found
}
