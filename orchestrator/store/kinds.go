package store

import (
	"fmt"
	"slices"
	"strings"

	v1 "daybreak/proto/daybreak/v1"
)

// RefOf returns the kind and name of an object.
func RefOf(o Object) Ref {
	return Ref{Kind: KindOf(o), Name: o.GetMeta().GetName()}
}

// ByName compares two objects by their names: the order in which lists have them. Names of events begin with the time.
func ByName[T Object](a, b T) int {
	return strings.Compare(a.GetMeta().GetName(), b.GetMeta().GetName())
}

// KindOf returns the kind of an object, KIND_UNSPECIFIED for a message that is not one.
func KindOf(o Object) v1.Kind {
	switch o.(type) {
	case *v1.Zone:
		return v1.Kind_KIND_ZONE
	case *v1.Host:
		return v1.Kind_KIND_HOST
	case *v1.Image:
		return v1.Kind_KIND_IMAGE
	case *v1.Pool:
		return v1.Kind_KIND_POOL
	case *v1.Desktop:
		return v1.Kind_KIND_DESKTOP
	case *v1.Calendar:
		return v1.Kind_KIND_CALENDAR
	case *v1.Rollout:
		return v1.Kind_KIND_ROLLOUT
	case *v1.Claim:
		return v1.Kind_KIND_CLAIM
	case *v1.Event:
		return v1.Kind_KIND_EVENT
	case *v1.JoinToken:
		return v1.Kind_KIND_JOIN_TOKEN
	case *v1.Plan:
		return v1.Kind_KIND_PLAN
	case *v1.History:
		return v1.Kind_KIND_HISTORY
	}
	return v1.Kind_KIND_UNSPECIFIED
}

// New returns an empty object of a kind.
func New(kind v1.Kind) (Object, error) {
	switch kind {
	case v1.Kind_KIND_ZONE:
		return &v1.Zone{}, nil
	case v1.Kind_KIND_HOST:
		return &v1.Host{}, nil
	case v1.Kind_KIND_IMAGE:
		return &v1.Image{}, nil
	case v1.Kind_KIND_POOL:
		return &v1.Pool{}, nil
	case v1.Kind_KIND_DESKTOP:
		return &v1.Desktop{}, nil
	case v1.Kind_KIND_CALENDAR:
		return &v1.Calendar{}, nil
	case v1.Kind_KIND_ROLLOUT:
		return &v1.Rollout{}, nil
	case v1.Kind_KIND_CLAIM:
		return &v1.Claim{}, nil
	case v1.Kind_KIND_EVENT:
		return &v1.Event{}, nil
	case v1.Kind_KIND_JOIN_TOKEN:
		return &v1.JoinToken{}, nil
	case v1.Kind_KIND_PLAN:
		return &v1.Plan{}, nil
	case v1.Kind_KIND_HISTORY:
		return &v1.History{}, nil
	}
	return nil, fmt.Errorf("make object of kind %v: %w", kind, ErrInvalid)
}

// KindName returns the name of a kind as keys, events and people have it: "pool", "join_token".
func KindName(kind v1.Kind) string {
	return strings.ToLower(strings.TrimPrefix(kind.String(), "KIND_"))
}

// KindByName is the reverse of KindName; KIND_UNSPECIFIED for a name that is none.
func KindByName(name string) v1.Kind {
	kind := v1.Kind(v1.Kind_value["KIND_"+strings.ToUpper(name)])
	if KindName(kind) != name {
		return v1.Kind_KIND_UNSPECIFIED
	}
	return kind
}

// Kinds returns every kind of object.
func Kinds() []v1.Kind {
	var kinds []v1.Kind
	for number := range v1.Kind_name {
		if kind := v1.Kind(number); kind != v1.Kind_KIND_UNSPECIFIED {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}
