package link

// WithoutUSO has a tap believe that the kernel does not know how to cut datagrams.
func WithoutUSO(l Link) { l.(*tap).uso = false }
