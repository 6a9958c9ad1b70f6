package link

import "sync"

// named is a switch that several holders of a set share.
type named struct {
	*Switch
	holders int
}

// holder is a share in a named switch.
type holder struct {
	*Switch
	leave func()
}

// readSwitch reads the name of a switch.
func readSwitch(name string) (opener, error) {
	if name == "" {
		return nil, because(ErrSpec, "no name; cards that are to be connected have the same one, for example switch:lan")
	}
	return func(s *Set) (Link, error) { return s.openSwitch(name), nil }, nil
}

// openSwitch gives the switch of a name, which lives until its last holder closes it.
func (s *Set) openSwitch(name string) Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.switches[name]
	if n == nil {
		n = &named{Switch: NewSwitch(SwitchConfig{})}
		if s.switches == nil {
			s.switches = map[string]*named{}
		}
		s.switches[name] = n
	}
	n.holders++
	return &holder{n.Switch, sync.OnceFunc(func() { s.leave(name, n) })}
}

func (s *Set) leave(name string, n *named) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.holders--; n.holders == 0 {
		delete(s.switches, name)
		n.Close()
	}
}

// Close gives the share back.
func (h *holder) Close() error {
	h.leave()
	return nil
}
