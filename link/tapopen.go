package link

import "strconv"

const tapUsage = "tap:NAME[,queues=N][,up=on]"

// readTap reads "tap:NAME[,queues=N][,up=on]" or "tap:fd=N[,fd=N…]".
func readTap(arg string) (opener, error) {
	var opt TapOptions
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
	var open func(TapOptions) (Link, error)
	switch {
	case name != "" && fds == nil:
		err = checkTap(name, opt.Queues)
		open = func(opt TapOptions) (Link, error) { return Tap(name, opt) }
	case name == "" && fds != nil && opt.Queues == 0:
		open = func(opt TapOptions) (Link, error) { return TapFD(fds, opt) }
	default:
		err = because(ErrSpec, "cannot read %q; write %s, or tap:fd=N for a descriptor that is open", arg, tapUsage)
	}
	if err != nil {
		return nil, err
	}
	return func(s *Set) (Link, error) {
		if s.Reactor == nil {
			return nil, errNoReactor
		}
		opt.Reactor, opt.Logger = s.Reactor, s.Logger
		return open(opt)
	}, nil
}
