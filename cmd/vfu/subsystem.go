package main

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"vfiouser/block"
	"vfiouser/devices/nvme"
)

// subsystem is an NVM subsystem, as its controllers' options describe it, and while they are
// served.
type subsystem struct {
	name       string // empty for that of one controller
	members    []*controller
	serial     string
	pool       string
	stateDir   string
	namespaces []namespace

	log  *slog.Logger
	made *nvme.Subsystem
	open int // members

	mu    sync.Mutex
	texts map[block.Backend]string // that backends were opened by
}

// subsystems finds those of controllers, in the order of the devices.
func subsystems(list []device) ([]*subsystem, error) {
	var all []*subsystem
	byName := make(map[string]*subsystem)
	for _, d := range list {
		c, ok := d.(*controller)
		if !ok {
			continue
		}
		s := byName[c.subsystem]
		if s == nil {
			s = &subsystem{name: c.subsystem}
			all = append(all, s)
			if c.subsystem != "" {
				byName[c.subsystem] = s
			}
		}
		if err := s.add(c); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// add takes a controller and what it says of the subsystem.
func (s *subsystem) add(c *controller) error {
	if len(s.members) == nvme.MaxControllers {
		return usageError{fmt.Errorf("%s: subsystem %s has %d controllers already, more are not possible", c, printable(s.name), len(s.members))}
	}
	s.members = append(s.members, c)
	for i, n := range c.namespaces {
		if err := n.format.CheckFormat(); err != nil {
			return usageError{fmt.Errorf("%s: namespace %d of the controller: %w", c, i+1, err)}
		}
	}
	s.namespaces = append(s.namespaces, c.namespaces...)
	for _, once := range []struct {
		option string
		to     *string
		says   string
	}{{"serial", &s.serial, c.serial}, {"pool", &s.pool, c.pool}, {"state directory", &s.stateDir, c.stateDir}} {
		switch {
		case once.says == "" || once.says == *once.to:
		case *once.to != "":
			return usageError{fmt.Errorf("%s: the %s of subsystem %s is %q already; say it once", c, once.option, printable(s.name), *once.to)}
		default:
			*once.to = once.says
		}
	}
	return nil
}

// check says what is missing.
func (s *subsystem) check() error {
	switch c := s.members[0]; {
	case len(s.namespaces) == 0 && s.pool == "":
		return c.missing("--namespace (or --pool)", "[[nvme.namespace]] (or pool)", "what should be on the disk?")
	case len(s.namespaces) > nvme.MaxNamespaces:
		return usageError{fmt.Errorf("%s: %d namespaces; a subsystem has at most %d", c, len(s.namespaces), nvme.MaxNamespaces)}
	}
	return nil
}

// incoming says whether the storage may be in use by another server yet.
func (s *subsystem) incoming() bool {
	for _, c := range s.members {
		if c.incoming {
			return true
		}
	}
	return false
}

// enter makes the subsystem for the first of its controllers.
func (s *subsystem) enter(log *slog.Logger) error {
	if s.made == nil {
		s.log, s.texts = log, make(map[block.Backend]string)
		if err := s.make(); err != nil {
			return err
		}
	}
	s.open++
	return nil
}

// leave closes it after the last one.
func (s *subsystem) leave() error {
	if s.open--; s.open > 0 {
		return nil
	}
	return s.made.Close()
}

func (s *subsystem) make() (err error) {
	cfg := nvme.SubsystemConfig{Serial: s.serial, StateDir: s.stateDir, Logger: s.log}
	defer func() {
		if err == nil {
			return
		}
		for _, n := range cfg.Namespaces {
			err = errors.Join(err, n.Backend.Close())
		}
		if cfg.Pool != nil {
			err = errors.Join(err, cfg.Pool.Close())
		}
	}()
	for _, n := range s.namespaces {
		opened, err := s.backend(n, s.incoming())
		if err != nil {
			return err
		}
		cfg.Namespaces = append(cfg.Namespaces, opened)
		s.texts[opened.Backend] = n.backend
	}
	if s.pool != "" {
		if cfg.Pool, err = block.OpenPool(s.pool); err != nil {
			return err
		}
	}
	s.made, err = nvme.NewSubsystem(cfg)
	return err
}

// backend opens what stands behind a namespace.
func (s *subsystem) backend(n namespace, unclaimed bool) (nvme.Namespace, error) {
	b, err := block.OpenWith(n.backend, block.OpenOptions{Unclaimed: unclaimed, Logger: s.log})
	opened := n.format
	opened.Backend = b
	return opened, err
}

// remember keeps the text by which a namespace's storage was opened, and forgets those of
// namespaces that are gone.
func (s *subsystem) remember(opened block.Backend, text string) {
	texts := map[block.Backend]string{opened: text}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.made.Namespaces() {
		if b, err := s.made.Backend(n.ID); err == nil && s.texts[b] != "" {
			texts[b] = s.texts[b]
		}
	}
	s.texts = texts
}
