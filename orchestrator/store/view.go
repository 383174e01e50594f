package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// View is what a mirror knew at one revision: immutable, and of one piece (a transaction is in it wholly or not at
// all). Its objects and slices are shared: do not modify.
type View struct {
	// Revision of the store; 0 in the view of a mirror that has heard nothing yet.
	Revision int64

	kinds     map[v1.Kind]*table // one for each kind that is mirrored; keys are names
	byPool    *table             // desktops; keys are pool, NUL, name
	byHost    *table             // placed desktops; keys are host, NUL, name
	bySubject *table             // events; keys are kind, slash, name of the subject, NUL, name
	waiting   *table             // claims of users who wait for a desktop; keys are pool, NUL, name
}

func emptyView(kinds []v1.Kind) *View {
	v := &View{kinds: make(map[v1.Kind]*table, len(kinds)), byPool: &table{}, byHost: &table{}, bySubject: &table{}, waiting: &table{}}
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
	return under[*v1.Desktop](v.byPool, pool)
}

// DesktopsOnHost returns the desktops whose incarnation is placed on a host, sorted by name.
func (v *View) DesktopsOnHost(host string) []*v1.Desktop {
	v.table(v1.Kind_KIND_DESKTOP)
	return under[*v1.Desktop](v.byHost, host)
}

// EventsAbout returns the events that speak of an object, or of another that had its name before, oldest first.
func (v *View) EventsAbout(subject Ref) []*v1.Event {
	v.table(v1.Kind_KIND_EVENT)
	return under[*v1.Event](v.bySubject, KindName(subject.Kind)+"/"+subject.Name)
}

// EventsSince returns the events of a time and after it, oldest first.
func (v *View) EventsSince(at time.Time) []*v1.Event {
	var found []*v1.Event
	v.table(v1.Kind_KIND_EVENT).from(eventStamp(at), func(_ string, o Object) bool {
		found = append(found, o.(*v1.Event))
		return true
	})
	return found
}

// ClaimsWaiting returns the claims of users who wait for a desktop of a pool, sorted by name.
func (v *View) ClaimsWaiting(pool string) []*v1.Claim {
	v.table(v1.Kind_KIND_CLAIM)
	return under[*v1.Claim](v.waiting, pool)
}

// waitsFor names the pool that a claim's user waits for; "" when they wait no more.
func waitsFor(c *v1.Claim) string {
	if c.GetDesktop() != "" {
		return ""
	}
	return c.GetPool()
}

// under returns the objects that an index has under a value, sorted by name.
func under[T Object](index *table, value string) []T {
	var found []T
	prefix := value + "\x00"
	index.from(prefix, func(key string, o Object) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		found = append(found, o.(T))
		return true
	})
	return found
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
	next := &View{Revision: batch.Revision, kinds: maps.Clone(v.kinds), byPool: v.byPool, byHost: v.byHost, bySubject: v.bySubject, waiting: v.waiting}
	if batch.Reset {
		for kind := range next.kinds {
			next.kinds[kind] = &table{}
		}
		next.byPool, next.byHost, next.bySubject, next.waiting = &table{}, &table{}, &table{}, &table{}
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
	switch before, _ := t.get(ref.Name); ref.Kind {
	case v1.Kind_KIND_DESKTOP:
		v.byPool = reindexed(v.byPool, before, o, func(d *v1.Desktop) string { return d.GetSpec().GetPool() })
		v.byHost = reindexed(v.byHost, before, o, func(d *v1.Desktop) string { return d.GetIncarnation().GetHost() })
	case v1.Kind_KIND_EVENT:
		v.bySubject = reindexed(v.bySubject, before, o, func(e *v1.Event) string { return e.GetSubjectKind() + "/" + e.GetSubject() })
	case v1.Kind_KIND_CLAIM:
		v.waiting = reindexed(v.waiting, before, o, waitsFor)
	}
	if o == nil {
		v.kinds[ref.Kind] = t.drop(ref.Name)
		return
	}
	v.kinds[ref.Kind] = t.put(ref.Name, o)
}

// reindexed moves an object within an index from where before has it to where after has it. Either may be nil. An object
// without the value is not in the index.
func reindexed[T Object](index *table, before, after Object, value func(T) string) *table {
	was, is := indexKey(before, value), indexKey(after, value)
	if was != "" && was != is {
		index = index.drop(was)
	}
	if is != "" {
		index = index.put(is, after)
	}
	return index
}

func indexKey[T Object](o Object, value func(T) string) string {
	typed, ok := o.(T)
	if !ok || value(typed) == "" {
		return ""
	}
	return value(typed) + "\x00" + o.GetMeta().GetName()
}
