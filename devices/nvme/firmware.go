package nvme

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"

	"vfiouser/devices/nvme/spec"
)

// Firmware images are text: nothing in them is executed, but the revision that the controller
// reports is that of the image it runs. An image is a multiple of 4,096 bytes, begins with
// firmwareMagic, and has its revision at 16, its size at 24 and the CRC-32 (IEEE) of all bytes
// from 32 on at 28.
const (
	firmwareMagic  = "vfiouser firmwar"
	firmwareUnit   = 4096 // of pieces and images, FWUG
	firmwareHeader = 32
	maxFirmware    = 1 << 20
	firmwareSlots  = 3
	readOnlySlot   = 1 // has the firmware that the controller was made with
)

// FirmwareImage makes an image that Firmware Image Download and Firmware Commit take. The
// revision has 1 to 8 printable ASCII characters; the payload has no meaning. The error is
// ErrConfig.
func FirmwareImage(revision string, payload []byte) ([]byte, error) {
	if err := checkText("firmware revision", revision, 8); err != nil {
		return nil, err
	}
	size := (firmwareHeader + len(payload) + firmwareUnit - 1) / firmwareUnit * firmwareUnit
	if revision == "" || size > maxFirmware {
		return nil, configError("firmware image %q of %d bytes", revision, size)
	}
	b := make([]byte, size)
	copy(b, firmwareMagic)
	copy(b[16:24], "        ")
	copy(b[16:24], revision)
	copy(b[firmwareHeader:], payload)
	binary.LittleEndian.PutUint32(b[24:], uint32(size))
	binary.LittleEndian.PutUint32(b[28:], crc32.ChecksumIEEE(b[firmwareHeader:]))
	return b, nil
}

var errImage = errors.New("nvme: no firmware image")

// firmwareRevision is the revision of an image.
func firmwareRevision(b []byte) (string, error) {
	le := binary.LittleEndian
	if len(b) < firmwareUnit || string(b[:16]) != firmwareMagic || uint64(le.Uint32(b[24:])) != uint64(len(b)) ||
		le.Uint32(b[28:]) != crc32.ChecksumIEEE(b[firmwareHeader:]) {
		return "", errImage
	}
	revision := spec.Text(b[16:24])
	if revision == "" || checkText("revision", revision, 8) != nil {
		return "", errImage
	}
	return revision, nil
}

// firmware is the slots of a subsystem.
type firmware struct {
	mu    sync.Mutex
	slots firmwareState
}

// firmwareState is what is kept. Slot 1 has the revision of the configuration.
type firmwareState struct {
	Active    int // slot
	Next      int // slot that the next reset activates, 0: none
	Revisions [firmwareSlots]string
	Running   string // which the active slot may not have any more
}

func (s *firmwareState) possible() bool {
	has := func(slot int) bool { return slot >= 1 && slot <= firmwareSlots && s.Revisions[slot-1] != "" }
	for _, r := range s.Revisions {
		if checkText("revision", r, 8) != nil {
			return false
		}
	}
	return has(s.Active) && (s.Next == 0 || has(s.Next)) && s.Running != "" && checkText("revision", s.Running, 8) == nil
}

// running is the revision that runs.
func (f *firmware) running() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.slots.Running
}

func (f *firmware) state() firmwareState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.slots
}

func (f *firmware) load(s firmwareState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slots = s
}

func newFirmware(revision string) firmwareState {
	return firmwareState{Active: readOnlySlot, Revisions: [firmwareSlots]string{revision}, Running: revision}
}

// activate makes a slot the running one, as a reset does with the one that was chosen (0), if
// one was.
func (f *firmware) activate(slot int) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slot == 0 {
		slot = f.slots.Next
	}
	if slot != 0 {
		f.slots.activate(slot)
	}
	return slot != 0
}

func (s *firmwareState) activate(slot int) {
	s.Active, s.Next, s.Running = slot, 0, s.Revisions[slot-1]
}

// firmwarePage is the firmware slot information log (Base 2.0, 5.16.1.4).
func (h *host) firmwarePage() *spec.FirmwareLog {
	s := h.c.subsystem.firmware.state()
	l := &spec.FirmwareLog{ActiveSlot: uint8(s.Active), NextSlot: uint8(s.Next)}
	copy(l.Revisions[:], s.Revisions[:])
	return l
}

// download is the pieces of an image that have come.
type download struct {
	Image  []byte          `json:",omitempty"`
	Pieces map[uint64]bool `json:",omitempty"` // by number, of firmwareUnit each
}

// possible says whether a host could have sent this.
func (d *download) possible() bool {
	for piece := range d.Pieces {
		if piece >= uint64(len(d.Image)/firmwareUnit) {
			return false
		}
	}
	return len(d.Image) <= maxFirmware && len(d.Image)%firmwareUnit == 0
}

// downloadFirmware is Firmware Image Download (Base 2.0, 5.13).
func (h *host) downloadFirmware(e *spec.SubmissionEntry) (spec.Status, uint32) {
	n, off := (uint64(e.CDW10)+1)*4, uint64(e.CDW11)*4
	if n%firmwareUnit != 0 || off%firmwareUnit != 0 || n > uint64(h.c.cfg.MaxTransfer) || off+n > maxFirmware {
		return badField, 0
	}
	d := &h.download
	for at := off; at < off+n; at += firmwareUnit {
		if d.Pieces[at/firmwareUnit] {
			return spec.OverlappingRange | spec.StatusDNR, 0
		}
	}
	piece := make([]byte, n)
	if st := h.data.fromHost(e, piece); !st.OK() {
		return st, 0
	}
	if d.Pieces == nil {
		d.Pieces = make(map[uint64]bool)
	}
	if grow := int(off+n) - len(d.Image); grow > 0 {
		d.Image = append(d.Image, make([]byte, grow)...)
	}
	copy(d.Image[off:], piece)
	for at := off; at < off+n; at += firmwareUnit {
		d.Pieces[at/firmwareUnit] = true
	}
	return spec.Success, 0
}

// take is the whole image, and forgets it. nil: none has come.
func (d *download) take() (image []byte, whole bool) {
	image, whole = d.Image, len(d.Pieces)*firmwareUnit == len(d.Image)
	*d = download{}
	return image, whole
}

// commitFirmware is Firmware Commit.
func (h *host) commitFirmware(e *spec.SubmissionEntry) (spec.Status, uint32) {
	slot, action := int(e.CDW10&7), e.CDW10>>3&7
	if action > spec.CommitActivateNow {
		return badField, 0
	}
	s := h.c.subsystem
	before, after, slot, st := s.firmware.commit(slot, action, &h.download)
	event := spec.FirmwareEvent{Old: before.Running, New: before.Running, Action: uint8(action), Slot: uint8(slot)}
	if st.OK() {
		event.New = after.Revisions[slot-1]
		if action == spec.CommitActivateNow {
			s.tell(eventFirmware)
		}
		s.keepFirmware()
	} else {
		st |= spec.StatusDNR
	}
	event.Status = st
	h.record(spec.EventFirmwareCommit, 1, page(spec.FirmwareEventSize, &event))
	return st, 0
}

// commit carries out a commit action, alone: the controllers of a subsystem have the same slots.
// It says in which slot, and what the slots were before and are now.
func (f *firmware) commit(slot int, action uint32, d *download) (before, after firmwareState, _ int, _ spec.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before = f.slots
	slot, st := f.slots.commit(slot, action, d)
	return before, f.slots, slot, st
}

// commit changes the slots if there is no failure.
func (s *firmwareState) commit(slot int, action uint32, d *download) (int, spec.Status) {
	if slot > firmwareSlots {
		return slot, spec.InvalidFirmwareSlot
	}
	next := *s
	if action <= spec.CommitReplaceActivate || action == spec.CommitActivateNow && d.Image != nil {
		if slot == 0 {
			slot = next.spare()
		}
		if slot == readOnlySlot {
			return slot, spec.InvalidFirmwareSlot
		}
		image, whole := d.take()
		revision, err := firmwareRevision(image)
		if err != nil || !whole {
			return slot, spec.InvalidFirmwareImage
		}
		next.Revisions[slot-1] = revision
	}
	switch {
	case slot == 0:
		return slot, spec.InvalidFirmwareSlot
	case next.Revisions[slot-1] == "":
		return slot, spec.InvalidFirmwareImage
	case action == spec.CommitReplaceActivate || action == spec.CommitActivate:
		next.Next = slot
	case action == spec.CommitActivateNow:
		next.activate(slot)
	}
	*s = next
	return slot, spec.Success
}

// spare is the slot that an image goes to if the host does not choose: an empty one, or else
// one that does not run.
func (s *firmwareState) spare() int {
	other := 0
	for slot := readOnlySlot + 1; slot <= firmwareSlots; slot++ {
		if s.Revisions[slot-1] == "" {
			return slot
		}
		if slot != s.Active {
			other = slot
		}
	}
	return other
}
