package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "daybreak/proto/daybreak/v1"
)

// View is what a mirror knew at one revision: immutable, and of one piece (a transaction is in it wholly or not at
// all). Its objects and slices are shared: do not modify.
type View struct {
	// Revision of the store; 0 in the view of a mirror that has heard nothing yet.
	Revision int64

	kinds  map[v1.Kind]*table // one for each kind that is mirrored; keys are names
	byPool *table             // desktops; keys are pool, NUL, name
	byHost *table             // placed desktops; keys are host, NUL, name
}

func emptyView(kinds []v1.Kind) *View {
	v := &View{kinds: make(map[v1.Kind]*table, len(kinds)), byPool: &table{}, byHost: &table{}}
	for _, kind := range kinds {
		v.kinds[kind] = &table{}
	}
	return v
}

// table returns the objects of a kind. To ask a mirror for a kind that it was not made for is a mistake in the program;
// "there is none" would be a dangerous answer to it.
func (v *View) table(kind v1.Kind) *table {
	t, ok := v.kinds[kind]
	if !ok {
		panic(fmt.Sprintf("store: the mirror does not hold objects of kind %s", KindName(kind)))
	}
	return t
}

// Lookup returns the named object of T's kind.
func Lookup[T Object](v *View, name string) (T, bool) {
	var zero T
	o, ok := v.table(KindOf(zero)).get(name)
	if !ok {
		return zero, false
	}
	return o.(T), true
}

// All returns all objects of T's kind, sorted by name.
func All[T Object](v *View) []T {
	var zero T
	return listed[T](v.table(KindOf(zero)))
}

// DesktopsOfPool returns the desktops of a pool, sorted by name.
func (v *View) DesktopsOfPool(pool string) []*v1.Desktop {
	v.table(v1.Kind_KIND_DESKTOP)
	return under(v.byPool, pool)
}

// DesktopsOnHost returns the desktops whose incarnation is placed on a host, sorted by name.
func (v *View) DesktopsOnHost(host string) []*v1.Desktop {
	v.table(v1.Kind_KIND_DESKTOP)
	return under(v.byHost, host)
}

// under returns the desktops that an index has under a value.
func under(index *table, value string) []*v1.Desktop {
	var desktops []*v1.Desktop
	prefix := value + "\x00"
	index.from(prefix, func(key string, o Object) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		desktops = append(desktops, o.(*v1.Desktop))
		return true
	})
	return desktops
}

// get returns an object of a kind that the view holds.
func (v *View) get(ref Ref) (Object, bool) {
	return v.table(ref.Kind).get(ref.Name)
}

// refs returns every object's kind and name, in that order.
func (v *View) refs() []Ref {
	var refs []Ref
	for _, kind := range slices.Sorted(maps.Keys(v.kinds)) {
		v.kinds[kind].from("", func(name string, _ Object) bool {
			refs = append(refs, Ref{Kind: kind, Name: name})
			return true
		})
	}
	return refs
}

// with returns the view after a batch. Objects of kinds that the view does not hold are ignored.
func (v *View) with(batch Batch) *View {
	next := &View{Revision: batch.Revision, kinds: maps.Clone(v.kinds), byPool: v.byPool, byHost: v.byHost}
	if batch.Reset {
		for kind := range next.kinds {
			next.kinds[kind] = &table{}
		}
		next.byPool, next.byHost = &table{}, &table{}
	}
	for _, ref := range batch.Deleted {
		next.set(ref, nil)
	}
	for _, o := range batch.Changed {
		next.set(RefOf(o), o)
	}
	return next
}

// set is for with, on a view that nobody else has yet: it puts an object, or drops it when o is nil.
func (v *View) set(ref Ref, o Object) {
	t, ok := v.kinds[ref.Kind]
	if !ok {
		return
	}
	if ref.Kind == v1.Kind_KIND_DESKTOP {
		before, _ := t.get(ref.Name)
		v.byPool = reindexed(v.byPool, before, o, func(d *v1.Desktop) string { return d.GetSpec().GetPool() })
		v.byHost = reindexed(v.byHost, before, o, func(d *v1.Desktop) string { return d.GetIncarnation().GetHost() })
	}
	if o == nil {
		v.kinds[ref.Kind] = t.drop(ref.Name)
		return
	}
	v.kinds[ref.Kind] = t.put(ref.Name, o)
}

// reindexed moves a desktop within an index from where before has it to where after has it. Either may be nil. A
// desktop without the value is not in the index.
func reindexed(index *table, before, after Object, value func(*v1.Desktop) string) *table {
	was, is := indexKey(before, value), indexKey(after, value)
	if was != "" && was != is {
		index = index.drop(was)
	}
	if is != "" {
		index = index.put(is, after)
	}
	return index
}

func indexKey(o Object, value func(*v1.Desktop) string) string {
	d, ok := o.(*v1.Desktop)
	if !ok || value(d) == "" {
		return ""
	}
	return value(d) + "\x00" + d.GetMeta().GetName()
}
