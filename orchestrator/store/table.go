package store

import (
	"cmp"
	"slices"
	"sync"
)

// pageSize is about how many entries a page of a table holds. A change copies one page and the list of pages.
const pageSize = 64

// table is an immutable map from key to object, in key order. put and drop return a new table that shares nearly
// everything with the old one, so that a View per transaction costs little however many objects there are.
type table struct {
	pages [][]entry // none is empty
	size  int

	once sync.Once
	list any // what listed made of it
}

type entry struct {
	key    string
	object Object
}

func byKey(e entry, key string) int { return cmp.Compare(e.key, key) }

// find returns the page that holds the key or would.
func (t *table) find(key string) int {
	page, _ := slices.BinarySearchFunc(t.pages, key, func(p []entry, key string) int {
		return cmp.Compare(p[len(p)-1].key, key)
	})
	return min(page, len(t.pages)-1)
}

func (t *table) get(key string) (Object, bool) {
	if t.size == 0 {
		return nil, false
	}
	page := t.pages[t.find(key)]
	if at, found := slices.BinarySearchFunc(page, key, byKey); found {
		return page[at].object, true
	}
	return nil, false
}

func (t *table) put(key string, o Object) *table {
	if t.size == 0 {
		return &table{pages: [][]entry{{{key, o}}}, size: 1}
	}
	number := t.find(key)
	page := t.pages[number]
	at, found := slices.BinarySearchFunc(page, key, byKey)
	next := &table{pages: slices.Clone(t.pages), size: t.size}
	if found {
		page = slices.Clone(page)
		page[at].object = o
		next.pages[number] = page
		return next
	}
	page = slices.Insert(slices.Clone(page), at, entry{key, o})
	next.size++
	if len(page) <= pageSize {
		next.pages[number] = page
		return next
	}
	half := len(page) / 2
	next.pages[number] = slices.Clip(page[:half])
	next.pages = slices.Insert(next.pages, number+1, slices.Clone(page[half:]))
	return next
}

func (t *table) drop(key string) *table {
	if t.size == 0 {
		return t
	}
	number := t.find(key)
	at, found := slices.BinarySearchFunc(t.pages[number], key, byKey)
	if !found {
		return t
	}
	next := &table{pages: slices.Clone(t.pages), size: t.size - 1}
	if page := slices.Delete(slices.Clone(next.pages[number]), at, at+1); len(page) > 0 {
		next.pages[number] = page
	} else {
		next.pages = slices.Delete(next.pages, number, number+1)
	}
	return next
}

// from calls yield with the entries from key on, in order, until it returns false.
func (t *table) from(key string, yield func(key string, o Object) bool) {
	if t.size == 0 {
		return
	}
	for number := t.find(key); number < len(t.pages); number++ {
		page := t.pages[number]
		at, _ := slices.BinarySearchFunc(page, key, byKey)
		for _, e := range page[at:] {
			if !yield(e.key, e.object) {
				return
			}
		}
	}
}

// listed returns all objects in order. It makes the slice once per table and shares it.
func listed[T Object](t *table) []T {
	t.once.Do(func() {
		list := make([]T, 0, t.size)
		t.from("", func(_ string, o Object) bool {
			list = append(list, o.(T))
			return true
		})
		t.list = list
	})
	return t.list.([]T)
}
