package nvme

import (
	"errors"
	"fmt"
	"time"

	"vfiouser/devices/nvme/spec"
)

// keepNow writes a subject of the state directory as it is when its turn comes, so that the
// newest one stays. The snapshot must not need what its caller holds.
func (s *Subsystem) keepNow(subject string, snapshot func() any) {
	if s.state.path == "" {
		return
	}
	s.keeping.Lock()
	defer s.keeping.Unlock()
	s.keep(subject, snapshot())
}

// Subjects of a subsystem; those of a controller have its identifier behind them.
const (
	keptFirmware = "firmware"
	keptSelfTest = "selftest"
	keptEvents   = "events"
	keptHealth   = "health"
	keptFeatures = "features"
	keptPages    = "telemetry"
)

func (c *Controller) subject(name string) string { return fmt.Sprintf("%s-%d", name, c.id()) }

func impossible(subject string) error {
	return fmt.Errorf("nvme: state: the content of %s is impossible", subject)
}

// recallRecords takes over what an earlier process has kept. There is power again, so the
// firmware is activated that waits for it.
func (s *Subsystem) recallRecords() error {
	slots := newFirmware(s.cfg.Firmware)
	found, err := s.state.recall(keptFirmware, &slots)
	if err != nil {
		return err
	}
	if found {
		slots.Revisions[readOnlySlot-1] = s.cfg.Firmware
		if !slots.possible() {
			return impossible(keptFirmware)
		}
	}
	s.firmware.load(slots)
	if !s.firmware.activate(0) {
		s.firmware.activate(slots.Active)
	}
	var tests selfTestState
	if _, err := s.state.recall(keptSelfTest, &tests); err != nil {
		return err
	}
	if !tests.possible() {
		return impossible(keptSelfTest)
	}
	s.selfTest.recall(&tests)
	var events []spec.PersistentEvent
	if _, err := s.state.recall(keptEvents, &events); err != nil {
		return err
	}
	if !possibleEvents(events) {
		return impossible(keptEvents)
	}
	s.journal.load(events)
	return errors.Join(s.recallProtection(), s.recallSanitize())
}

// controllerHealth is what is kept of the health of a controller.
type controllerHealth struct {
	Health healthState
	Used   bool // by a host that has not shut it down
}

// recallRecords takes over what an earlier process has kept of a controller.
func (c *Controller) recallRecords() error {
	s := &c.subsystem.state
	h := controllerHealth{}
	found, err := s.recall(c.subject(keptHealth), &h)
	if err != nil {
		return err
	}
	if found {
		if !h.Health.possible() {
			return impossible(c.subject(keptHealth))
		}
		h.Health.PowerCycles++
		if h.Used {
			h.Health.UnsafeShutdowns++
		}
		c.applyHealth(&h.Health)
	}
	var t telemetry
	if _, err := s.recall(c.subject(keptPages), &t); err != nil {
		return err
	}
	if !t.possible() {
		return impossible(c.subject(keptPages))
	}
	c.telemetry = t
	return c.recallFeatures()
}

// recallFeatures takes over the values that were saved, but for what is not there any more: they
// may be those of a namespace that was removed.
func (c *Controller) recallFeatures() error {
	var list, there []valueState
	if _, err := c.subsystem.state.recall(c.subject(keptFeatures), &list); err != nil {
		return err
	}
	h := &host{c: c}
	for _, v := range list {
		f := &c.features[v.ID]
		if h.offers(v.ID) && (f.caps&spec.FeatureNamespace == 0 || c.namespace(v.Part) != nil) {
			there = append(there, v)
		}
	}
	saved, err := h.loadSaved(there)
	if err != nil {
		return fmt.Errorf("%w: %w", impossible(c.subject(keptFeatures)), err)
	}
	c.saved = saved
	return nil
}

// keepFeatures and keepPages are of the control goroutine.
func (h *host) keepFeatures() {
	c := h.c
	c.subsystem.keepNow(c.subject(keptFeatures), func() any { return h.stateOf(c.saved) })
}

func (c *Controller) keepPages() {
	c.subsystem.keepNow(c.subject(keptPages), func() any { return c.telemetry })
}

// keepHealth keeps what SMART counts. used says that a host works with the controller: if that is
// what is found the next time, it was not shut down.
func (c *Controller) keepHealth(used bool) {
	c.subsystem.keepNow(c.subject(keptHealth), func() any { return controllerHealth{c.health(), used} })
}

func (s *Subsystem) keepFirmware() {
	s.keepNow(keptFirmware, func() any { return s.firmware.state() })
}

func (s *Subsystem) keepSelfTest() {
	s.keepNow(keptSelfTest, func() any { return s.selfTest.state() })
}

func (s *Subsystem) keepEvents() {
	s.keepNow(keptEvents, func() any { return s.journal.list() })
}

// maxPowered bounds what an earlier process may say about how long there was power.
const maxPowered = 100 * 365 * 24 * time.Hour

// possible says whether a controller could have counted this.
func (s *healthState) possible() bool {
	return s.Powered >= 0 && s.Powered <= maxPowered && s.Busy >= 0 && s.Busy <= maxPowered && len(s.Entries) == errorEntries*spec.ErrorEntrySize
}
