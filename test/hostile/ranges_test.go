package hostile

import (
	"testing"

	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// TestRangesOfBlocks has lists of ranges, for Copy and for Dataset Management, that are not
// there or name what is not there.
func TestRangesOfBlocks(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const list = ramBase + 8<<20
	type ranges []spec.DSMRange
	all := func(r spec.DSMRange) ranges {
		s := make(ranges, 256)
		for i := range s {
			s[i] = r
		}
		return s
	}
	for _, c := range []struct {
		name        string
		at          uint64
		ranges      ranges
		deallocate  spec.Status
		copy        spec.Status // of ranges of the same form
		destination uint64
	}{
		{"list nowhere", nowhere, ranges{{}}, spec.DataTransferError, spec.DataTransferError, 0},
		{"list at the end of the address space", lastPage, make(ranges, 256), spec.DataTransferError, spec.DataTransferError, 0},
		{"list at an odd address", list + 1, ranges{{}}, spec.InvalidPRPOffset, spec.InvalidPRPOffset, 0},
		{"last block there could be", list, ranges{{Blocks: 1, LBA: 1<<64 - 1}}, spec.LBAOutOfRange, spec.LBAOutOfRange, 0},
		{"range that wraps around", list, ranges{{Blocks: 1<<32 - 1, LBA: 1<<64 - 8}}, spec.LBAOutOfRange, 0xffff, 0},
		{"one block behind the last", list, ranges{{Blocks: 1, LBA: diskSize / blockSize}}, spec.LBAOutOfRange, spec.LBAOutOfRange, 0},
		{"more blocks than there are", list, ranges{{Blocks: 1<<32 - 1}}, spec.LBAOutOfRange, 0xffff, 0},
		{"256 times everything", list, all(spec.DSMRange{Blocks: diskSize / blockSize}), spec.Success, spec.CommandSizeLimitsExceeded, 0},
		{"256 times nothing", list, all(spec.DSMRange{}), spec.Success, 0xffff, 0},
		{"destination behind the last block", list, ranges{{Blocks: 1}}, spec.Success, spec.LBAOutOfRange, 1<<64 - 1},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, p := a.started(64)
			var dsm, copies []byte
			for _, r := range c.ranges {
				b := make([]byte, spec.DSMRangeSize)
				r.Put(b)
				dsm = append(dsm, b...)
				b = make([]byte, spec.CopyRangeSize)
				(&spec.CopyRange{LBA: r.LBA, Blocks: uint32(uint16(r.Blocks-1)) + 1}).Put(b)
				copies = append(copies, b...)
			}
			n := uint32(len(c.ranges))
			for _, ns := range []uint32{memNS, fileNS} {
				g.ram.write(list-ramBase, dsm)
				e := spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: ns, PRP1: c.at, PRP2: c.at &^ 0xfff, CDW10: n - 1, CDW11: spec.DSMDeallocate}
				if st := p.status(e); st.Code() != c.deallocate {
					a.Errorf("Dataset Management of namespace %d: %v, want %v", ns, st, c.deallocate)
				}
				g.ram.write(list-ramBase, copies)
				e = spec.SubmissionEntry{Opcode: spec.NVMCopy, NSID: ns, PRP1: c.at, PRP2: c.at &^ 0xfff, CDW12: min(n, 128) - 1}
				e.SetLBA(c.destination)
				if st := p.status(e); c.copy != 0xffff && st.Code() != c.copy {
					a.Errorf("Copy in namespace %d: %v, want %v", ns, st, c.copy)
				}
			}
			if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, list, 0)); !st.OK() {
				a.Errorf("a good command afterwards: %v", st)
			}
		})
	}
}

// TestReadsOfLogs has every log page read with lengths, offsets and addresses of which
// something may be wrong.
func TestReadsOfLogs(t *testing.T) {
	l := newLab(t, nvme.Trap)
	for _, c := range []struct {
		name     string
		at       uint64
		dwords   uint64
		offset   uint64
		specific uint32 // LSP
		mustFail bool
	}{
		{"4 bytes", ramBase + 8<<20, 1, 0, 0, false},
		{"16 GiB", ramBase + 8<<20, 1 << 32, 0, 0, true},
		{"1 MiB of a page", ramBase + 1<<20, 256 << 10, 0, 0, false},
		{"nowhere", nowhere, 1024, 0, 0, true},
		{"at the end of the address space", lastPage + 8, 1024, 0, 0, true},
		{"from the last dword there could be", ramBase + 8<<20, 1, 1<<64 - 4, 0, true},
		{"from an odd byte", ramBase + 8<<20, 1, 1, 0, true},
		{"length and offset that wrap around", ramBase + 8<<20, 1024, 1<<64 - 4096, 0, true},
		{"another context", ramBase + 8<<20, 1024, 0, 1, false},
		{"a context that ends", ramBase + 8<<20, 1024, 0, 2, false},
		{"every bit", ramBase + 8<<20, 1024, 0, 0x7f, false},
	} {
		l.attack(t, c.name, func(a *attack) {
			g := a.newRig(16 << 20)
			g.start()
			for id := range uint32(256) {
				n := c.dwords - 1
				st := g.admin.status(spec.SubmissionEntry{
					Opcode: spec.AdminGetLogPage, NSID: spec.BroadcastNSID, PRP1: c.at, PRP2: ramBase + 9<<20,
					CDW10: id | c.specific<<8 | uint32(n)<<16, CDW11: uint32(n >> 16),
					CDW12: uint32(c.offset), CDW13: uint32(c.offset >> 32),
				})
				if c.mustFail && st.OK() {
					a.Errorf("log page %#x: success", id)
				}
			}
			g.do(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: ramBase + 8<<20})
		})
	}
}
