package nvme

import (
	"slices"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// ioCommand is what an I/O command does: what Get Log Page says of it, and for all but
// those that prepare itself knows, the check.
type ioCommand struct {
	effects uint32
	prepare func(*Controller, *command) (plan, spec.Status)
}

var ioCommands = [256]ioCommand{
	spec.NVMFlush:              {spec.EffectSupported, (*Controller).prepareFlush},
	spec.NVMWrite:              {spec.EffectSupported | spec.EffectLogicalBlocks, nil},
	spec.NVMRead:               {spec.EffectSupported, nil},
	spec.NVMWriteUncorrectable: {spec.EffectSupported | spec.EffectLogicalBlocks, (*Controller).prepareWriteUncorrectable},
	spec.NVMCompare:            {spec.EffectSupported, (*Controller).prepareCompare},
	spec.NVMWriteZeroes:        {spec.EffectSupported | spec.EffectLogicalBlocks, nil},
	spec.NVMDatasetManagement:  {spec.EffectSupported | spec.EffectLogicalBlocks, (*Controller).prepareDatasetManagement},
	spec.NVMVerify:             {spec.EffectSupported, (*Controller).prepareVerify},
	spec.NVMCopy:               {spec.EffectSupported | spec.EffectLogicalBlocks, (*Controller).prepareCopy},

	spec.NVMReservationRegister: {spec.EffectSupported, (*Controller).prepareReservation},
	spec.NVMReservationReport:   {spec.EffectSupported, (*Controller).prepareReport},
	spec.NVMReservationAcquire:  {spec.EffectSupported, (*Controller).prepareKeyed},
	spec.NVMReservationRelease:  {spec.EffectSupported, (*Controller).prepareKeyed},
}

// prepareOther is prepare for the commands that are not the frequent ones.
func (c *Controller) prepareOther(cmd *command) (plan, spec.Status) {
	prepare := ioCommands[cmd.entry.Opcode].prepare
	switch {
	case prepare == nil:
		return 0, spec.InvalidOpcode | spec.StatusDNR
	case cmd.entry.Flags&fused != 0 || cmd.entry.PSDT() > spec.PSDTSGLSegment:
		return 0, flagsStatus(&cmd.entry)
	}
	if ns := c.namespace(cmd.entry.NSID); ns != nil {
		if st := spec.Status(ns.refusal.Load()); st != spec.Success {
			return 0, st
		}
		if ns.bars(c, cmd.entry.Opcode) {
			return 0, conflict
		}
	}
	return prepare(c, cmd)
}

func (c *Controller) prepareFlush(cmd *command) (plan, spec.Status) {
	cmd.request.Op = block.Flush
	cmd.request.Offset = 0
	if cmd.entry.NSID == spec.BroadcastNSID { // VWC bits 2:1
		if slices.ContainsFunc(c.active(), func(ns *namespace) bool { return ns.bars(c, spec.NVMFlush) }) {
			return 0, conflict
		}
		st := c.subsystem.sanitize.get()
		return planSlow, st.refusal()
	}
	cmd.ns = c.served(cmd.entry.NSID)
	if cmd.ns == nil {
		return 0, c.absent(cmd.entry.NSID)
	}
	switch {
	case cmd.ns.formatting.Load():
		return 0, spec.FormatInProgress
	case cmd.ns.gate.shut.Load():
		return planSlow, spec.Success
	}
	return planSimple, spec.Success
}

func (c *Controller) prepareDatasetManagement(cmd *command) (plan, spec.Status) {
	cmd.ns = c.served(cmd.entry.NSID)
	switch {
	case cmd.ns == nil:
		return 0, c.absent(cmd.entry.NSID)
	case cmd.ns.info.ReadOnly && cmd.entry.CDW11&spec.DSMDeallocate != 0:
		return 0, spec.NamespaceWriteProtected | spec.StatusDNR
	}
	return planSlow, spec.Success
}

// locate finds the blocks of a command that names them as Read does.
func (c *Controller) locate(cmd *command) spec.Status {
	ns := c.served(cmd.entry.NSID)
	if ns == nil {
		return c.absent(cmd.entry.NSID)
	}
	if !ns.has(cmd.entry.LBA(), uint64(cmd.entry.Blocks())) {
		return spec.LBAOutOfRange | spec.StatusDNR
	}
	cmd.ns = ns
	return spec.Success
}

// has says whether n blocks from lba are all there.
func (ns *namespace) has(lba, n uint64) bool { return n <= ns.blocks && lba <= ns.blocks-n }

// bytes is the size of so many blocks.
func (ns *namespace) bytes(n uint64) int64 { return int64(n << ns.shift) }

// failedAt says which block is to blame, for the error log.
func (c *command) failedAt(lba uint64) { c.entry.SetLBA(lba) }
