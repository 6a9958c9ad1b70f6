package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/devices/nvme/spec"
)

const (
	classNVMe = 0x010802
	// nvmeRegisters is up to where the registers reach that are read here, in bytes. None
	// of them changes by being read.
	nvmeRegisters = spec.RegACQ + 8
)

// nvmeReport is what the registers of an NVMe controller say.
type nvmeReport struct {
	CAP     string `json:"cap"`
	VS      string `json:"vs"`
	CC      string `json:"cc"`
	CSTS    string `json:"csts"`
	Version string `json:"version"`

	MaxQueueEntries  int      `json:"max_queue_entries"`
	ReadyTimeoutMS   int      `json:"ready_timeout_ms"`
	DoorbellStride   int      `json:"doorbell_stride"` // bytes
	MinPageSize      int      `json:"min_page_size"`   // bytes
	MaxPageSize      int      `json:"max_page_size"`   // bytes
	CommandSets      []string `json:"command_sets"`
	ContiguousQueues bool     `json:"contiguous_queues"`
	SubsystemReset   bool     `json:"subsystem_reset"`

	Enabled  bool   `json:"enabled"`
	Ready    bool   `json:"ready"`
	Fatal    bool   `json:"fatal"`
	Shutdown string `json:"shutdown"` // "none", "occurring", "complete" or "reserved"

	// While the controller is enabled:
	PageSize               int    `json:"page_size,omitempty"`
	AdminSubmissionEntries int    `json:"admin_submission_entries,omitempty"`
	AdminCompletionEntries int    `json:"admin_completion_entries,omitempty"`
	AdminSubmissionAddress string `json:"admin_submission_address,omitempty"`
	AdminCompletionAddress string `json:"admin_completion_address,omitempty"`
}

// readNVMe reads the registers as a driver does: each by an access of its own size.
func (r *inspection) readNVMe(ctx context.Context, dev *client.Device) error {
	var regs [nvmeRegisters]byte
	for _, reg := range []struct{ off, size uint64 }{
		{spec.RegCAP, 8}, {spec.RegVS, 4}, {spec.RegCC, 4}, {spec.RegCSTS, 4},
		{spec.RegAQA, 4}, {spec.RegASQ, 8}, {spec.RegACQ, 8},
	} {
		refused, err := refusal(dev.ReadRegion(ctx, codec.RegionBAR0, reg.off, regs[reg.off:reg.off+reg.size]))
		if err != nil {
			return err
		}
		if refused != "" {
			r.Regions[codec.RegionBAR0].Error = refused
			return nil
		}
	}
	r.NVMe = describeNVMe(regs[:])
	return nil
}

func describeNVMe(regs []byte) *nvmeReport {
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(regs[off:]) }
	long := func(off int) uint64 { return binary.LittleEndian.Uint64(regs[off:]) }
	capability, vs, cc, csts := spec.Cap(long(spec.RegCAP)), word(spec.RegVS), spec.CC(word(spec.RegCC)), spec.CSTS(word(spec.RegCSTS))
	n := &nvmeReport{
		CAP: fmt.Sprintf("0x%016x", uint64(capability)), VS: fmt.Sprintf("0x%08x", vs),
		CC: fmt.Sprintf("0x%08x", uint32(cc)), CSTS: fmt.Sprintf("0x%08x", uint32(csts)),
		Version: fmt.Sprintf("%d.%d.%d", vs>>16, vs>>8&0xff, vs&0xff),

		MaxQueueEntries: int(capability.MQES()) + 1, ReadyTimeoutMS: 500 * int(capability.TO()),
		DoorbellStride: capability.DoorbellStride(),
		MinPageSize:    4096 << capability.MPSMin(), MaxPageSize: 4096 << capability.MPSMax(),
		CommandSets:      commandSets(capability),
		ContiguousQueues: capability&spec.CapCQR != 0, SubsystemReset: capability&spec.CapNSSRS != 0,

		Enabled: cc.EN(), Ready: csts.RDY(), Fatal: csts.CFS(),
		Shutdown: [4]string{spec.ShutNormal: "none", spec.ShutOccurring: "occurring", spec.ShutComplete: "complete", 3: "reserved"}[csts.SHST()],
	}
	if cc.EN() {
		aqa := spec.AQA(word(spec.RegAQA))
		n.PageSize = 4096 << cc.MPS()
		n.AdminSubmissionEntries, n.AdminCompletionEntries = int(aqa.ASQS())+1, int(aqa.ACQS())+1
		n.AdminSubmissionAddress = fmt.Sprintf("%#x", long(spec.RegASQ))
		n.AdminCompletionAddress = fmt.Sprintf("%#x", long(spec.RegACQ))
	}
	return n
}

func commandSets(c spec.Cap) []string {
	sets := []string{}
	for _, s := range []struct {
		bit  spec.Cap
		name string
	}{{spec.CapCSSNVM, "nvm"}, {spec.CapCSSAll, "io"}, {spec.CapCSSNone, "admin only"}} {
		if c&s.bit != 0 {
			sets = append(sets, s.name)
		}
	}
	return sets
}
