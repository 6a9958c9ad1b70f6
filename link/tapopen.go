package link

import "strconv"

const tapUsage = "tap:NAME[,queues=N][,up=on]"

// openTap is "tap:NAME[,queues=N][,up=on]" or "tap:fd=N[,fd=N…]".
func openTap(s *Set, arg string) (Link, error) {
	if s.Reactor == nil {
		return nil, because(ErrSpec, "it needs a reactor")
	}
	opt := TapOptions{Reactor: s.Reactor, Logger: s.Logger}
	var (
		name string
		fds  []int
		err  error
	)
	for i, o := range cutOptions(arg) {
		switch {
		case o.key == "" && i == 0 && o.value != "":
			name = o.value
		case o.key == "fd":
			var fd int
			if fd, err = strconv.Atoi(o.value); err != nil || fd < 0 {
				return nil, because(ErrSpec, "bad descriptor %q", o.value)
			}
			fds = append(fds, fd)
		case o.key == "queues":
			if opt.Queues, err = strconv.Atoi(o.value); err != nil || opt.Queues < 1 {
				return nil, because(ErrSpec, "bad number of queues %q: 1 to %d are possible", o.value, maxTapQueues)
			}
		case o.key == "up":
			if opt.Up, err = o.onOff(); err != nil {
				return nil, err
			}
		default:
			return nil, because(ErrSpec, "cannot read %q; write %s, or tap:fd=N for a descriptor that is open", arg, tapUsage)
		}
	}
	switch {
	case name != "" && fds == nil:
		return Tap(name, opt)
	case name == "" && fds != nil && opt.Queues == 0:
		return TapFD(fds, opt)
	}
	return nil, because(ErrSpec, "cannot read %q; write %s, or tap:fd=N for a descriptor that is open", arg, tapUsage)
}
