package nvmeconformance

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// Bits of CDW12 (NVM 1.0, figure 12).
const (
	checkRef   = 1 << 26
	checkApp   = 1 << 27
	checkGuard = 1 << 28
	piAction   = 1 << 29
)

const (
	guardCheck  = spec.SCTMedia<<8 | 0x82
	appCheck    = spec.SCTMedia<<8 | 0x83
	refCheck    = spec.SCTMedia<<8 | 0x84
	piLength    = 8
	piBlocks    = 4
	piReference = 0x1000
)

// crc16 is that of the T10 data integrity field.
func crc16(b []byte) (crc uint16) {
	for _, v := range b {
		crc ^= uint16(v) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x8bb7
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// protected is a namespace with 8 bytes of protection information and a 16-bit guard.
type protected struct {
	t        *T
	ns       *namespace
	extended bool
	kind     uint8
}

// findProtected finds one whose metadata is nothing but protection information.
func (t *T) findProtected() protected {
	for i := range t.namespaces {
		ns := &t.namespaces[i]
		if ns.metadata == piLength && ns.data[29]&7 != 0 && !ns.protected && ns.guard16(t) {
			return protected{t, ns, ns.data[26]&0x10 != 0, ns.data[29] & 7}
		}
	}
	t.skipf("no namespace with 8 bytes of protection information")
	return protected{}
}

// guard16 says whether the format in use has a guard of 16 bits (CNS 05h, ELBAF).
func (n *namespace) guard16(t *T) bool {
	if !t.ctratt(15) {
		return true
	}
	d := t.identify(5, n.id)
	return t.u32(d, 12+4*int(n.data[26]&0xf|n.data[26]>>1&0x30))>>7&3 == 0
}

// blocksWith are blocks of data and their protection information, as it has to be.
func (p protected) blocksWith(seed byte) (data []byte, info []byte) {
	data = make([]byte, piBlocks*p.ns.blockSize)
	pattern(data, seed)
	info = make([]byte, piBlocks*piLength)
	for i := range piBlocks {
		b := data[i*p.ns.blockSize:][:p.ns.blockSize]
		binary.BigEndian.PutUint16(info[i*piLength:], crc16(b))
		binary.BigEndian.PutUint16(info[i*piLength+2:], 0xabcd)
		ref := uint32(piReference + i)
		if p.kind == 3 {
			ref = piReference
		}
		binary.BigEndian.PutUint32(info[i*piLength+4:], ref)
	}
	return data, info
}

// command is a command with data and metadata laid out as the format says; fetch reads them back.
func (p protected) command(op uint8, cdw12 uint32, data, info []byte) (cmd *spec.SubmissionEntry, fetch func() (data, info []byte)) {
	t, size := p.t, p.ns.blockSize
	cmd = &spec.SubmissionEntry{Opcode: op, NSID: p.ns.id, CDW12: cdw12 | piBlocks - 1, CDW14: piReference, CDW15: 0xffff<<16 | 0xabcd}
	cmd.SetLBA(piReference) // what type 1 needs
	if cdw12&piAction != 0 {
		mem := t.with(cmd, piBlocks*size)
		copy(mem, data)
		return cmd, func() ([]byte, []byte) { return mem, nil }
	}
	if !p.extended {
		mem := t.with(cmd, piBlocks*size)
		copy(mem, data)
		meta, at := t.alloc(piBlocks * piLength)
		copy(meta, info)
		cmd.MPTR = at
		return cmd, func() ([]byte, []byte) { return mem, meta }
	}
	mem := t.with(cmd, piBlocks*(size+piLength))
	for i := range piBlocks {
		if data != nil {
			copy(mem[i*(size+piLength):], data[i*size:][:size])
			copy(mem[i*(size+piLength)+size:], info[i*piLength:][:piLength])
		}
	}
	return cmd, func() (d, m []byte) {
		for i := range piBlocks {
			d = append(d, mem[i*(size+piLength):][:size]...)
			m = append(m, mem[i*(size+piLength)+size:][:piLength]...)
		}
		return d, m
	}
}

// protectionChecks are those of end-to-end data protection.
func protectionChecks() (checks []Check) {
	const section = "NVM 1.0, 5.2"
	add := func(rule string, run func(t *T, p protected)) {
		checks = append(checks, Check{section, rule, func(t *T) { run(t, t.findProtected()) }, false})
	}
	write := func(t *T, p protected, cdw12 uint32, data, info []byte) completion {
		cmd, _ := p.command(spec.NVMWrite, cdw12, data, info)
		return t.do(t.io, cmd)
	}
	all := func(p protected) uint32 {
		if p.kind == 3 {
			return checkGuard | checkApp
		}
		return checkGuard | checkApp | checkRef
	}
	add("what is written with its protection information reads back with it", func(t *T, p protected) {
		data, info := p.blocksWith(1)
		t.status("Write", write(t, p, all(p), data, info), spec.Success)
		cmd, fetch := p.command(spec.NVMRead, all(p), nil, nil)
		t.expectIO("Read", cmd, spec.Success)
		d, m := fetch()
		equal(t, "the right data", bytes.Equal(d, data), true)
		equal(t, "the right protection information", bytes.Equal(m, info), true)
	})
	add("PRACT in a Write makes the guard and the tags", func(t *T, p protected) {
		data, info := p.blocksWith(2)
		t.status("Write", write(t, p, piAction, data, nil), spec.Success)
		cmd, fetch := p.command(spec.NVMRead, all(p), nil, nil)
		t.expectIO("Read", cmd, spec.Success)
		d, m := fetch()
		equal(t, "the right data", bytes.Equal(d, data), true)
		equal(t, "the right protection information", bytes.Equal(m, info), true)
	})
	add("PRACT in a Read checks and strips", func(t *T, p protected) {
		data, info := p.blocksWith(3)
		t.status("Write", write(t, p, all(p), data, info), spec.Success)
		cmd, fetch := p.command(spec.NVMRead, piAction|all(p), nil, nil)
		t.expectIO("Read", cmd, spec.Success)
		d, _ := fetch()
		equal(t, "the right data", bytes.Equal(d, data), true)
	})
	for _, c := range []struct {
		name    string
		at, bit int
		check   uint32
		want    spec.Status
	}{{"guard", 0, 0, checkGuard, guardCheck}, {"application tag", 2, 0, checkApp, appCheck}, {"reference tag", 7, 0, checkRef, refCheck}} {
		wrong := func(t *T, p protected) (data, info []byte) {
			t.need(p.kind != 3 || c.check != checkRef, "reference tag that is checked (type 3)")
			data, info = p.blocksWith(4)
			info[2*piLength+c.at] ^= 1
			return data, info
		}
		add("a Write with a wrong "+c.name+" is refused if it is checked", func(t *T, p protected) {
			data, info := wrong(t, p)
			equal(t, "status", write(t, p, c.check, data, info).Status.Code(), c.want)
		})
		add("a Write with a wrong "+c.name+" succeeds if it is not checked", func(t *T, p protected) {
			data, info := wrong(t, p)
			t.status("Write", write(t, p, all(p)&^c.check, data, info), spec.Success)
		})
		for _, op := range []struct {
			name   string
			opcode uint8
			bit    int
		}{{"Read", spec.NVMRead, -1}, {"Verify", spec.NVMVerify, 7}} {
			add(fmt.Sprintf("a %s of a wrong %s fails if it is checked, and says where", op.name, c.name), func(t *T, p protected) {
				t.need(op.bit < 0 || t.oncs(op.bit), op.name)
				data, info := wrong(t, p)
				t.status("Write", write(t, p, 0, data, info), spec.Success)
				cmd, _ := p.command(op.opcode, all(p), nil, nil)
				equal(t, "status", t.do(t.io, cmd).Status.Code(), c.want)
				equal(t, "LBA in the error log", t.u64(t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64), 16), piReference+2)
			})
			add(fmt.Sprintf("a %s of a wrong %s succeeds if it is not checked", op.name, c.name), func(t *T, p protected) {
				t.need(op.bit < 0 || t.oncs(op.bit), op.name)
				data, info := wrong(t, p)
				t.status("Write", write(t, p, 0, data, info), spec.Success)
				cmd, _ := p.command(op.opcode, all(p)&^c.check, nil, nil)
				t.expectIO(op.name, cmd, spec.Success)
			})
		}
	}
	add("the application tag FFFFh switches the checks off", func(t *T, p protected) {
		data, info := p.blocksWith(5)
		for i := range piBlocks {
			copy(info[i*piLength:], []byte{1, 2, 0xff, 0xff})
			if p.kind == 3 {
				copy(info[i*piLength+4:], []byte{0xff, 0xff, 0xff, 0xff})
			}
		}
		t.status("Write", write(t, p, 0, data, info), spec.Success)
		cmd, _ := p.command(spec.NVMRead, all(p), nil, nil)
		t.expectIO("Read", cmd, spec.Success)
	})
	add("the mask leaves bits of the application tag unchecked", func(t *T, p protected) {
		data, info := p.blocksWith(6)
		t.status("Write", write(t, p, 0, data, info), spec.Success)
		cmd, _ := p.command(spec.NVMRead, checkApp, nil, nil)
		cmd.CDW15 = 0xff00<<16 | 0xab00
		t.expectIO("Read", cmd, spec.Success)
		cmd.CDW15 = 0xff00<<16 | 0xac00
		equal(t, "status", t.do(t.io, cmd).Status.Code(), appCheck)
	})
	add("type 1 with a reference tag that is not the block's: Invalid Protection Information", func(t *T, p protected) {
		t.need(p.kind == 1, "type 1")
		data, info := p.blocksWith(7)
		cmd, _ := p.command(spec.NVMWrite, checkRef, data, info)
		cmd.CDW14++
		equal(t, "status", t.do(t.io, cmd).Status.Code(), spec.InvalidProtectionInfo)
	})
	add("metadata that is not mapped: "+describe(spec.DataTransferError), func(t *T, p protected) {
		t.need(!p.extended, "metadata in a buffer of its own")
		data, info := p.blocksWith(8)
		cmd, _ := p.command(spec.NVMWrite, 0, data, info)
		cmd.MPTR = nowhere
		t.expectMemoryError(t.do(t.io, cmd))
	})
	return checks
}
