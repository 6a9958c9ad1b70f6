package main

import (
	"fmt"
	"slices"
	"strconv"

	"vfiouser/block"
	"vfiouser/cmd/vfu/internal/control"
)

// volatileKind is the kind of a write cache among the filters.
const volatileKind = "volatile"

// optionalNamespace are the arguments of requests that are about one namespace, or about all.
type optionalNamespace struct {
	target
	Namespace uint32 `json:"namespace,omitempty"` // 0: all
}

// matching lists the drives' namespaces that are meant.
func (c *controls) matching(t *optionalNamespace) (list driveList, err error) {
	drives, err := c.drives(t.target)
	if err != nil {
		return list, err
	}
	for _, d := range drives {
		reports := d.reports()
		if t.Namespace != 0 {
			reports = slices.DeleteFunc(reports, func(r namespaceReport) bool { return r.Namespace != t.Namespace })
		}
		list.Devices = append(list.Devices, driveReport{d.place, reports})
	}
	if t.Namespace != 0 && !slices.ContainsFunc(list.Devices, func(d driveReport) bool { return len(d.Namespaces) > 0 }) {
		return list, control.Errorf(control.Missing, "there is no namespace %d", t.Namespace)
	}
	return list, nil
}

func (c *controls) listFilters(t *optionalNamespace) (any, error) { return c.matching(t) }

// filterChange are the arguments of filter-set.
type filterChange struct {
	namespaceTarget
	Filter   string `json:"filter"`   // kind, or place in the list
	Settings string `json:"settings"` // as behind the kind of filter in a backend
}

func (c *controls) setFilter(t *filterChange) (any, error) {
	d, err := c.drive(t.target)
	if err != nil {
		return nil, err
	}
	b, err := d.made.Backend(t.Namespace)
	if err != nil {
		return nil, typed(err)
	}
	f, err := findFilter(b, t.Filter)
	if err != nil {
		return nil, err
	}
	if err := f.Set(t.Settings); err != nil {
		return nil, typed(err)
	}
	return d.one(t.Namespace)
}

// findFilter finds a filter by its kind, or by its place if there are several.
func findFilter(b block.Backend, name string) (*block.Filter, error) {
	stack := block.Stack(b)
	if i, err := strconv.Atoi(name); err == nil {
		if i < 0 || i >= len(stack)-1 {
			return nil, control.Errorf(control.Missing, "there is no filter %d; the namespace has %d", i, len(stack)-1)
		}
		if f, ok := stack[i].(*block.Filter); ok {
			return f, nil
		}
		return nil, errVolatile
	}
	var found []*block.Filter
	for _, f := range block.Filters(b) {
		if f.Kind() == name {
			found = append(found, f)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, control.Errorf(control.Argument, "%d filters are a %s: give the place of the one that is meant, 0 for the outermost of all", len(found), name)
	case name == volatileKind && len(block.Volatiles(b)) > 0:
		return nil, errVolatile
	}
	return nil, control.Errorf(control.Missing, "the namespace has no filter %q in front; filters are given with the backend, switched off if need be: %s", name, "delay:off,mem:1G")
}

var errVolatile = control.Errorf(control.Refused, "the settings of a volatile cache are those that it was made with; power-cut and power-on are for it")

// cached are the backends of the namespaces that are meant and that have a write cache in front.
func (c *controls) cached(t *optionalNamespace) (all []block.Backend, err error) {
	drives, err := c.drives(t.target)
	if err != nil {
		return nil, err
	}
	for _, d := range drives {
		for _, n := range d.made.Namespaces() {
			b, err := d.made.Backend(n.ID)
			if err == nil && (t.Namespace == 0 || t.Namespace == n.ID) && len(block.Volatiles(b)) > 0 {
				all = append(all, b)
			}
		}
	}
	if len(all) == 0 {
		return nil, control.Errorf(control.Refused, "nothing that is meant has the filter volatile in front")
	}
	return all, nil
}

// powerReport is the result of power-cut and power-on.
type powerReport struct {
	driveList
	Caches    int   `json:"caches"`
	Forgotten int64 `json:"forgotten"` // bytes, in pages of 4,096
}

func (c *controls) cutPower(t *optionalNamespace) (any, error) {
	disks, err := c.cached(t)
	if err != nil {
		return nil, err
	}
	caches, forgotten, err := block.PowerOff(disks...)
	if err != nil {
		return nil, typed(fmt.Errorf("the power is cut, but what was to be kept could not be written: %w", err))
	}
	r := powerReport{Caches: caches, Forgotten: int64(forgotten) * 4096}
	r.driveList, err = c.matching(t)
	return r, err
}

func (c *controls) powerOn(t *optionalNamespace) (any, error) {
	disks, err := c.cached(t)
	if err != nil {
		return nil, err
	}
	r := powerReport{Caches: block.PowerOn(disks...)}
	r.driveList, err = c.matching(t)
	return r, err
}
