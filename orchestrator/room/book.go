package room

import (
	"maps"
	"slices"
	"sync"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Book makes accounts as Of does and remembers them, so that only hosts of which something changed are added up anew. Its zero
// value knows none. Several may use it at once.
type Book struct {
	mu     sync.Mutex
	images []*v1.Image
	pages  map[string]page
}

// page is an account, and what it was made of.
type page struct {
	desktops []*v1.Desktop
	account  *Host
}

// Of makes the account of all hosts, sorted by name. They are the caller's to book in.
func (b *Book) Of(view *store.View) []*Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	images := store.All[*v1.Image](view)
	if !slices.Equal(images, b.images) {
		b.images, b.pages = images, nil
	}
	objects := store.All[*v1.Host](view)
	var hosts []*Host
	pages := make(map[string]page, len(objects))
	for _, object := range objects {
		desktops := view.DesktopsOnHost(object.GetMeta().GetName())
		known, ok := b.pages[object.GetMeta().GetName()]
		if !ok || known.account.Host != object || !slices.Equal(known.desktops, desktops) {
			known = page{desktops, Account(view, object)}
		}
		pages[object.GetMeta().GetName()] = known
		hosts = append(hosts, known.account.copied())
	}
	b.pages = pages // those of hosts that are gone are forgotten
	return hosts
}

// copied is the account with all in it that Enter and Wake change.
func (h *Host) copied() *Host {
	c := *h
	c.Coming, c.OfPool = maps.Clone(h.Coming), maps.Clone(h.OfPool)
	return &c
}
