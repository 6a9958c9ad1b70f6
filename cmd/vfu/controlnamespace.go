package main

import (
	"errors"
	"slices"

	"vfiouser/block"
	"vfiouser/cmd/vfu/internal/control"
)

// namespaceTarget are the arguments that say which namespace is meant.
type namespaceTarget struct {
	target
	Namespace uint32 `json:"namespace"`
}

// driveReport is what a device's namespaces are told as.
type driveReport struct {
	Device     string            `json:"device"`
	Namespaces []namespaceReport `json:"namespaces"`
}

// driveList is the result of requests that list namespaces, all or a part of them.
type driveList struct {
	Devices []driveReport `json:"devices"`
}

func (c *controls) listNamespaces(t *target) (any, error) {
	drives, err := c.drives(*t)
	if err != nil {
		return nil, err
	}
	list := driveList{}
	for _, d := range drives {
		list.Devices = append(list.Devices, driveReport{d.place, d.reports()})
	}
	return list, nil
}

// newNamespace are the arguments of namespace-add.
type newNamespace struct {
	target
	Backend string `json:"backend"`
	formatReport
}

func (c *controls) addNamespace(n *newNamespace) (any, error) {
	d, err := c.drive(n.target)
	if err != nil {
		return nil, err
	}
	if n.Backend == "" {
		return nil, control.Errorf(control.Argument, "no backend; one is for example mem:1G")
	}
	format := n.format()
	if err := errors.Join(block.Check(n.Backend), format.CheckFormat()); err != nil {
		return nil, typed(err)
	}
	made, err := d.backend(namespace{n.Backend, format}, false)
	if err != nil {
		return nil, typed(err)
	}
	id, err := d.made.AddNamespace(made)
	if err != nil {
		return nil, typed(errors.Join(err, made.Backend.Close()))
	}
	d.remember(made.Backend, n.Backend)
	return d.one(id)
}

// one describes a namespace.
func (d *drive) one(id uint32) (any, error) {
	reports := d.reports()
	i := slices.IndexFunc(reports, func(r namespaceReport) bool { return r.Namespace == id })
	if i < 0 {
		return nil, control.Errorf(control.Missing, "there is no namespace %d any more", id)
	}
	return driveList{[]driveReport{{d.place, reports[i : i+1]}}}, nil
}

func (c *controls) removeNamespace(n *namespaceTarget) (any, error) {
	d, err := c.drive(n.target)
	if err != nil {
		return nil, err
	}
	if err := d.made.RemoveNamespace(n.Namespace); err != nil {
		return nil, typed(err)
	}
	return nothing{}, nil
}

// newSize are the arguments of namespace-resize.
type newSize struct {
	namespaceTarget
	Size int64 `json:"size"` // bytes
}

func (c *controls) resizeNamespace(n *newSize) (any, error) {
	d, err := c.drive(n.target)
	if err != nil {
		return nil, err
	}
	if err := d.made.ResizeNamespace(n.Namespace, n.Size); err != nil {
		return nil, typed(err)
	}
	return d.one(n.Namespace)
}
