package nvme

import "vfiouser/devices/nvme/spec"

// reset is the NVM subsystem reset (Base 2.0, 3.7.1): every controller of the subsystem is
// reset, its registers included. The hosts find CSTS.NSSRO set, unless the reset
// activates other firmware (3.1.3.6). Any goroutine.
func (s *Subsystem) reset() {
	occurred := spec.CSTSNSSRO
	if s.firmware.state().Next != 0 {
		occurred = 0
	}
	s.live.Lock()
	defer s.live.Unlock()
	for h := range s.live.hosts {
		h.restart(occurred)
	}
}

// restart puts the registers back, but for what CSTS is to say, and asks for a reset: under
// the lock, so that an enable that is under way does not show afterwards. Any goroutine.
func (h *host) restart(csts spec.CSTS) {
	r := &h.c.regs
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restart(csts)
	h.ask(func(q *request) { q.resetAsked() })
}
