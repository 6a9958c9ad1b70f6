package nvmeconformance

import (
	"fmt"

	"vfiouser/devices/nvme/spec"
)

func span(a, b int) string { return fmt.Sprintf("%d to %d", a, b) }

// Admin opcodes (Base 2.0, figure 138).
const (
	namespaceManagement = 0x0d
	firmwareCommit      = 0x10
	firmwareDownload    = 0x11
	deviceSelfTest      = 0x14
	namespaceAttachment = 0x15
	directiveSend       = 0x19
	directiveReceive    = 0x1a
	virtualization      = 0x1c
	lockdown            = 0x24
	formatNVM           = 0x80
	securitySend        = 0x81
	securityReceive     = 0x82
	sanitize            = 0x84
	getLBAStatus        = 0x86
)

// optional is an optional command and a way to issue it that changes nothing.
type optional struct {
	name   string
	opcode uint8
	bit    int
	probe  spec.SubmissionEntry
}

var optionalAdmin = []optional{
	{"Security Send", securitySend, 0, spec.SubmissionEntry{CDW10: 0xff << 24}},
	{"Security Receive", securityReceive, 0, spec.SubmissionEntry{CDW10: 0xff << 24}},
	{"Format NVM", formatNVM, 1, spec.SubmissionEntry{NSID: 0xfffffffd}},
	{"Firmware Commit", firmwareCommit, 2, spec.SubmissionEntry{CDW10: 1<<3 | 7}},
	{"Firmware Image Download", firmwareDownload, 2, spec.SubmissionEntry{CDW10: 0x7fffffff, CDW11: 0x7fffffff}},
	{"Namespace Management", namespaceManagement, 3, spec.SubmissionEntry{CDW10: 0xf}},
	{"Namespace Attachment", namespaceAttachment, 3, spec.SubmissionEntry{CDW10: 0xf}},
	{"Device Self-test", deviceSelfTest, 4, spec.SubmissionEntry{CDW10: 7}},
	{"Directive Send", directiveSend, 5, spec.SubmissionEntry{CDW11: 0x7f7f}},
	{"Directive Receive", directiveReceive, 5, spec.SubmissionEntry{CDW11: 0x7f7f}},
	{"Virtualization Management", virtualization, 7, spec.SubmissionEntry{CDW10: 0xf}},
	{"Doorbell Buffer Config", spec.AdminDoorbellBuffer, 8, spec.SubmissionEntry{PRP1: 1, PRP2: 1}},
	{"Get LBA Status", getLBAStatus, 9, spec.SubmissionEntry{NSID: 0xfffffffd}},
	{"Lockdown", lockdown, 10, spec.SubmissionEntry{CDW10: 0xf}},
}

// optionalIO are probed with a namespace that is not there.
var optionalIO = []optional{
	{"Compare", spec.NVMCompare, 0, spec.SubmissionEntry{}},
	{"Write Uncorrectable", spec.NVMWriteUncorrectable, 1, spec.SubmissionEntry{}},
	{"Dataset Management", spec.NVMDatasetManagement, 2, spec.SubmissionEntry{}},
	{"Write Zeroes", spec.NVMWriteZeroes, 3, spec.SubmissionEntry{}},
	{"Reservation Register", reservationRegister, 5, spec.SubmissionEntry{}},
	{"Reservation Report", reservationReport, 5, spec.SubmissionEntry{}},
	{"Reservation Acquire", reservationAcquire, 5, spec.SubmissionEntry{}},
	{"Reservation Release", reservationRelease, 5, spec.SubmissionEntry{}},
	{"Verify", spec.NVMVerify, 7, spec.SubmissionEntry{}},
	{"Copy", spec.NVMCopy, 8, spec.SubmissionEntry{}},
}

// announcementChecks hold the announcements to what is accepted.
func announcementChecks() (checks []Check) {
	for _, o := range optionalAdmin {
		checks = append(checks, Check{identifyController, o.name + " is accepted if OACS announces it, else Invalid Command Opcode", func(t *T) {
			cmd := o.probe
			cmd.Opcode = o.opcode
			t.announced(t.oacs(o.bit), t.do(t.admin, &cmd))
		}, false})
	}
	checks = append(checks, Check{identifyController, "Sanitize is accepted if SANICAP announces an operation, else Invalid Command Opcode", func(t *T) {
		t.announced(t.u32(t.identity, 328)&7 != 0, t.do(t.admin, &spec.SubmissionEntry{Opcode: sanitize, CDW10: 7}))
	}, false})
	for _, o := range optionalIO {
		checks = append(checks, Check{identifyController, o.name + " is accepted if ONCS announces it, else Invalid Command Opcode", func(t *T) {
			cmd := o.probe
			cmd.Opcode, cmd.NSID = o.opcode, 0xfffffffd
			t.announced(t.oncs(o.bit), t.do(t.io, &cmd))
		}, false})
	}
	effects := func(rule string, run func(t *T)) {
		checks = append(checks, Check{"Base 2.0, 5.16.1.6", "commands supported and effects: " + rule, func(t *T) {
			t.need(t.effects != nil, "effects log")
			run(t)
		}, false})
	}
	for _, m := range []struct {
		name string
		off  int
	}{
		{"Delete I/O Submission Queue", 0x00}, {"Create I/O Submission Queue", 0x01}, {"Get Log Page", 0x02}, {"Delete I/O Completion Queue", 0x04},
		{"Create I/O Completion Queue", 0x05}, {"Identify", 0x06}, {"Abort", 0x08}, {"Set Features", 0x09}, {"Get Features", 0x0a},
		{"Asynchronous Event Request", 0x0c}, {"Flush", 256}, {"Write", 257}, {"Read", 258},
	} {
		effects("the mandatory command "+m.name+" is supported", func(t *T) { equal(t, "CSUPP", t.effect(m.off)&1, 1) })
	}
	for _, o := range optionalAdmin {
		effects(o.name+" is supported if and only if OACS announces it", func(t *T) {
			equal(t, "CSUPP", t.effect(int(o.opcode))&1 == 1, t.oacs(o.bit))
		})
	}
	for _, o := range optionalIO {
		effects(o.name+" is supported if and only if ONCS announces it", func(t *T) {
			equal(t, "CSUPP", t.effect(256+int(o.opcode))&1 == 1, t.oncs(o.bit))
		})
	}
	effects("Sanitize is supported if and only if SANICAP announces it", func(t *T) {
		equal(t, "CSUPP", t.effect(sanitize)&1 == 1, t.u32(t.identity, 328)&7 != 0)
	})
	effects("Keep Alive is supported if and only if KAS is not 0", func(t *T) {
		equal(t, "CSUPP", t.effect(spec.AdminKeepAlive)&1 == 1, t.u16(t.identity, 320) != 0)
	})
	for _, op := range []struct {
		name string
		off  int
		bit  int
	}{
		{"Write", 257, 1}, {"Write Zeroes", 256 + spec.NVMWriteZeroes, 1}, {"Write Uncorrectable", 256 + spec.NVMWriteUncorrectable, 1},
		{"Dataset Management", 256 + spec.NVMDatasetManagement, 1}, {"Copy", 256 + spec.NVMCopy, 1}, {"Format NVM", formatNVM, 1}, {"Sanitize", sanitize, 1},
	} {
		effects(op.name+" changes logical blocks (LBCC)", func(t *T) {
			t.need(t.effect(op.off)&1 != 0, "support of it")
			equal(t, "LBCC", t.effect(op.off)>>op.bit&1, 1)
		})
	}
	for _, op := range []struct {
		name string
		off  int
	}{{"Read", 258}, {"Flush", 256}, {"Compare", 256 + spec.NVMCompare}, {"Verify", 256 + spec.NVMVerify}, {"Identify", 6}, {"Get Log Page", 2}, {"Get Features", 10}} {
		effects(op.name+" changes nothing (LBCC, NCC, NIC, CCC)", func(t *T) { equal(t, "bits 4:1", t.effect(op.off)>>1&0xf, 0) })
	}
	effects("what is not supported has no effects", func(t *T) {
		for i := range 512 {
			if e := t.effect(i); e&1 == 0 && e != 0 {
				t.errorf("entry %d is %#x without CSUPP", i, e)
			}
		}
	})
	effects("reserved bits 13:5 are 0", func(t *T) {
		for i := range 512 {
			if e := t.effect(i); e&0x3fe0 != 0 {
				t.errorf("entry %d is %#x", i, e)
			}
		}
	})
	effects("the reserved bytes of the log are 0", func(t *T) { t.zero("effects log", t.effects, 2048, 4096) })
	effects("an admin command that is not supported is refused: Invalid Command Opcode", func(t *T) {
		for op := range 256 {
			if t.effect(op)&1 == 0 {
				t.status(fmt.Sprintf("opcode %02Xh", op), t.do(t.admin, &spec.SubmissionEntry{Opcode: uint8(op)}), never(spec.InvalidOpcode))
			}
		}
	})
	effects("an I/O command that is not supported is refused: Invalid Command Opcode", func(t *T) {
		for op := range 256 {
			if t.effect(256+op)&1 == 0 {
				t.status(fmt.Sprintf("opcode %02Xh", op), t.do(t.io, &spec.SubmissionEntry{Opcode: uint8(op)}), never(spec.InvalidOpcode))
			}
		}
	})
	effects("an I/O command that is supported is not refused for its opcode", func(t *T) {
		for op := range 256 {
			if t.effect(256+op)&1 != 0 {
				c := t.do(t.io, &spec.SubmissionEntry{Opcode: uint8(op), NSID: 0xfffffffd})
				equal(t, fmt.Sprintf("refusal of opcode %02Xh", op), c.Status.Code() == spec.InvalidOpcode, false)
			}
		}
	})
	return checks
}

func (t *T) effect(i int) uint32 { return t.u32(t.effects, 4*i) }

// announced checks that a command's opcode is known if and only if it was announced.
func (t *T) announced(yes bool, c completion) {
	if !yes {
		t.status("the command", c, never(spec.InvalidOpcode))
	} else if c.Status.Code() == spec.InvalidOpcode {
		t.errorf("the command is announced and completes with %s", describe(c.Status))
	}
}
