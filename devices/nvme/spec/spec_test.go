package spec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

func TestSubmissionEntryLayout(t *testing.T) {
	e := SubmissionEntry{
		Opcode: 0x11, Flags: 0xc1, CID: 0x2233, NSID: 0x44556677, CDW2: 2, CDW3: 3, MPTR: 4, PRP1: 0x1122334455667788,
		PRP2: 6, CDW10: 10, CDW11: 11, CDW12: 12, CDW13: 13, CDW14: 14, CDW15: 15,
	}
	b := make([]byte, SubmissionEntrySize)
	e.Put(b)
	for _, c := range []struct {
		at   int
		want []byte
	}{
		{0, []byte{0x11, 0xc1, 0x33, 0x22}},
		{4, []byte{0x77, 0x66, 0x55, 0x44}},
		{8, []byte{2, 0, 0, 0, 3, 0, 0, 0}},
		{16, []byte{4}},
		{24, []byte{0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}},
		{32, []byte{6}},
		{40, []byte{10, 0, 0, 0, 11, 0, 0, 0, 12, 0, 0, 0, 13, 0, 0, 0, 14, 0, 0, 0, 15, 0, 0, 0}},
	} {
		if got := b[c.at : c.at+len(c.want)]; !bytes.Equal(got, c.want) {
			t.Errorf("byte %d: % x, want % x", c.at, got, c.want)
		}
	}
	if e.Fuse() != 1 || e.PSDT() != 3 {
		t.Errorf("fuse %d, psdt %d", e.Fuse(), e.PSDT())
	}
	var back SubmissionEntry
	back.Get(b)
	if back != e {
		t.Errorf("read back %+v, want %+v", back, e)
	}
}

func TestCompletionEntryLayout(t *testing.T) {
	e := CompletionEntry{DW0: 1, DW1: 2, SQHead: 0x1234, SQID: 7, CID: 0xabcd, Phase: true, Status: InvalidField | StatusDNR | StatusMore}
	b := make([]byte, CompletionEntrySize)
	e.Put(b)
	want := []byte{1, 0, 0, 0, 2, 0, 0, 0, 0x34, 0x12, 7, 0, 0xcd, 0xab, 0x05, 0xc0}
	if !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	var back CompletionEntry
	back.Get(b)
	if back != e {
		t.Errorf("read back %+v, want %+v", back, e)
	}
}

func TestStatusIsComparedByCode(t *testing.T) {
	err := fmt.Errorf("read: %w", InvalidQueueID|StatusDNR)
	if !errors.Is(err, InvalidQueueID) || errors.Is(err, InvalidQueueSize) {
		t.Error("errors.Is does not compare the code")
	}
	s := InvalidQueueID | StatusDNR
	if s.SCT() != 1 || s.SC() != 1 || !s.DNR() || s.More() || s.OK() || !(StatusDNR).OK() {
		t.Errorf("fields of %v", s)
	}
	if got, want := s.Error(), "nvme: invalid queue identifier (SCT 1, SC 0x01, do not retry)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRegisterFields(t *testing.T) {
	c := NewCap(1023, 20, 1, 0, 4, CapCQR|CapCSSNVM)
	if c.MQES() != 1023 || c.TO() != 20 || c.DSTRD() != 1 || c.MPSMin() != 0 || c.MPSMax() != 4 || c.DoorbellStride() != 8 {
		t.Errorf("CAP %#x", uint64(c))
	}
	cc := NewCC(true, 1, 6, 4).WithSHN(ShutdownAbrupt)
	if !cc.EN() || cc.MPS() != 1 || cc.IOSQES() != 6 || cc.IOCQES() != 4 || cc.SHN() != ShutdownAbrupt || cc.CSS() != 0 || cc.AMS() != 0 {
		t.Errorf("CC %#x", uint32(cc))
	}
	st := CSTSReady.WithSHST(ShutComplete)
	if !st.RDY() || st.CFS() || st.SHST() != ShutComplete || uint32(st) != 9 {
		t.Errorf("CSTS %#x", uint32(st))
	}
	if a := NewAQA(255, 31); a.ASQS() != 255 || a.ACQS() != 31 || uint32(a) != 0x001f00ff {
		t.Errorf("AQA %#x", uint32(a))
	}
	if SQTailDoorbell(2, 4) != 0x1010 || CQHeadDoorbell(2, 4) != 0x1014 {
		t.Error("doorbell offsets")
	}
}

// wire is a structure that travels.
type wire interface {
	Put([]byte)
	Get([]byte)
}

func TestStructuresSurviveTheWire(t *testing.T) {
	ctrl := &IdentifyController{
		VendorID: 1, Serial: "S1", Model: "a model", Firmware: "1.0", MDTS: 7, Version: Version1_4, OACS: OACSDoorbellBuffer,
		SQES: 0x66, CQES: 0x44, Namespaces: 3, ONCS: ONCSWriteZeroes, VWC: 7, SubNQN: "nqn.2014-08.org.nvmexpress:uuid:x", OUI: [3]byte{1, 2, 3},
	}
	ctrl.PowerStates[0] = PowerState{2500, true, true, 16, 4, 1, 2, 3, 4, 5, 2, 6, 1, 7}
	ns := &IdentifyNamespace{Size: 1 << 40, Capacity: 5, DLFEAT: 9, NGUID: [16]byte{1}, EUI64: [8]byte{2}, NOWS: 3, NSATTR: NSAttrProtected}
	ns.Formats[0] = LBAFormat{8, 12, 1}
	smart := &Smart{CriticalWarning: 1, Temperature: 310, UnitsRead: 7, ErrorEntries: 9, CriticalMinutes: 3}
	smart.Sensors[7] = 300
	smart.ThermalTransitions, smart.ThermalSeconds = [2]uint32{1, 2}, [2]uint32{3, 4}
	effects := &EffectsLog{}
	effects.Admin[AdminIdentify], effects.IO[NVMWrite] = 1, 3
	for _, c := range []struct {
		in   wire
		size int
		out  wire
	}{
		{ctrl, IdentifySize, &IdentifyController{}},
		{ns, IdentifySize, &IdentifyNamespace{}},
		{&IndependentNamespace{NSFEAT: 1, NMIC: 2, RESCAP: 3, FPI: 4, NSATTR: 5, EnduranceGroup: 6, NSTAT: 7}, IdentifySize, &IndependentNamespace{}},
		{&NamespaceDescriptors{EUI64: [8]byte{1}, NGUID: [16]byte{2}, UUID: [16]byte{3}}, IdentifySize, &NamespaceDescriptors{}},
		{smart, SmartSize, &Smart{}},
		{&ErrorEntry{Count: 1, SQID: 2, CID: 3, Status: InvalidField | StatusDNR, Phase: true, Parameter: 5, LBA: 6, NSID: 7, Vendor: 8, Transport: 9, Specific: 10}, ErrorEntrySize, &ErrorEntry{}},
		{&FirmwareLog{ActiveSlot: 1, NextSlot: 2, Revisions: [7]string{"1.0", "", "x"}}, FirmwareSize, &FirmwareLog{}},
		{effects, EffectsSize, &EffectsLog{}},
		{&DSMRange{1, 2, 3}, DSMRangeSize, &DSMRange{}},
		{&Telemetry{Page: LogHostTelemetry, Areas: [3]uint16{1, 1, 1}, HostGeneration: 3, Available: true, ControllerGeneration: 4, Reason: "why", Data: make([]byte, 512)}, 1024, &Telemetry{}},
		{&PersistentEventLog{1, 2, 3, 4, 5, "s", "m", "n", 6, []PersistentEvent{{1, 2, 3, 4, []byte{5, 6}}, {7, 8, 9, 10, []byte{}}}}, 512 + 26 + 24, &PersistentEventLog{}},
		{&PowerOnEvent{"1.0", 2, 3, 4, 5}, PowerOnEventSize, &PowerOnEvent{}},
		{&FirmwareEvent{"1.0", "2.0", 1, 2, InvalidFirmwareImage}, FirmwareEventSize, &FirmwareEvent{}},
		{&EnduranceGroup{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, [2]uint64{13, 14}, [2]uint64{15, 16}}, EnduranceGroupSize, &EnduranceGroup{}},
		{&SelfTestLog{1, 50, []SelfTestResult{{Result: 7, Code: 2, Segment: 3, PowerOnHours: 4, HasNamespace: true, Namespace: 5, HasLBA: true, LBA: 6, HasStatus: true, Status: UnrecoveredRead}, {Code: 1}}}, SelfTestSize, &SelfTestLog{}},
		{&DirectiveParameters{1, 2, 3}, DirectiveParametersSize, &DirectiveParameters{}},
		{&SanitizeLog{1, 2, 3, 4, 5, 6, 7, 8, 9}, SanitizeSize, &SanitizeLog{}},
		{&SupportedPages{1, 0, 3}, SupportedPagesSize, &SupportedPages{}},
		{&FeatureEffects{0, 5}, FeatureEffectsSize, &FeatureEffects{}},
		{&LBARange{1, 1, 5, 9, [16]byte{7}}, LBARangeSize, &LBARange{}},
		{&HostBehavior{true, false, true, 0x300}, HostBehaviorSize, &HostBehavior{}},
	} {
		b := bytes.Repeat([]byte{0xff}, c.size)
		c.in.Put(b)
		c.out.Get(b)
		if !reflect.DeepEqual(c.in, c.out) {
			t.Errorf("%T: read back %+v, want %+v", c.in, c.out, c.in)
		}
	}
}

func TestNamespaceListEndsAtZero(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, IdentifySize)
	PutNamespaceList(b, []uint32{1, 5, 9})
	if got := NamespaceList(b); !reflect.DeepEqual(got, []uint32{1, 5, 9}) {
		t.Errorf("%v", got)
	}
	full := make([]uint32, MaxListNamespaces+1)
	for i := range full {
		full[i] = uint32(i + 1)
	}
	PutNamespaceList(b, full)
	if got := NamespaceList(b); len(got) != MaxListNamespaces {
		t.Errorf("%d identifiers", len(got))
	}
}

func TestHostileDescriptorsEnd(t *testing.T) {
	for _, b := range [][]byte{
		bytes.Repeat([]byte{0xff}, IdentifySize),
		bytes.Repeat([]byte{1}, IdentifySize),
		append([]byte{DescriptorUUID, 255}, make([]byte, IdentifySize-2)...),
	} {
		var d NamespaceDescriptors
		d.Get(b)
	}
}

func TestEntriesDoNotAllocate(t *testing.T) {
	b := make([]byte, SubmissionEntrySize)
	if n := testing.AllocsPerRun(100, func() {
		var e SubmissionEntry
		var c CompletionEntry
		e.Put(b)
		e.Get(b)
		c.Put(b)
		c.Get(b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
