package store

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "daybreak/proto/daybreak/v1"
)

// Writer is who holds a handle. Each field of an object has one writer.
type Writer string

// The writers.
const (
	WriterAPI       Writer = "api"
	WriterPool      Writer = "pool"
	WriterPlacement Writer = "placement"
	WriterRollout   Writer = "rollout"
	WriterDispatch  Writer = "dispatch"
)

// rights say who may do what to the objects of one kind.
type rights struct {
	create, remove []Writer
	// fields gives the owner by field path. A path with a dot takes one field out of a message that is somebody else's.
	fields map[string]Writer
}

// rightsOf is the table of ownership; the design's table and the protos' comments say the same.
func rightsOf(kind v1.Kind) rights {
	api, pool, placement, rollout, dispatch := WriterAPI, WriterPool, WriterPlacement, WriterRollout, WriterDispatch
	only := func(writers ...Writer) []Writer { return writers }
	owners := func(fields map[string]Writer) map[string]Writer {
		fields["meta.labels"], fields["meta.deletion"] = api, api
		return fields
	}
	switch kind {
	case v1.Kind_KIND_ZONE, v1.Kind_KIND_CALENDAR:
		return rights{only(api), only(api), owners(map[string]Writer{"spec": api})}
	case v1.Kind_KIND_HOST:
		return rights{only(api), only(api), owners(map[string]Writer{"spec": api, "status": dispatch, "wanted_images": rollout})}
	case v1.Kind_KIND_IMAGE:
		return rights{only(api, rollout), only(api), owners(map[string]Writer{"spec": api, "status": rollout})}
	case v1.Kind_KIND_POOL:
		return rights{only(api), only(pool), owners(map[string]Writer{"spec": api, "status": pool, "release": rollout})}
	case v1.Kind_KIND_DESKTOP:
		return rights{only(pool), only(pool), owners(map[string]Writer{
			"spec": pool, "claim": pool, "ended": pool, "status": dispatch,
			"incarnation": pool, "incarnation.host": placement, "incarnation.unplaced_reason": placement,
		})}
	case v1.Kind_KIND_ROLLOUT:
		return rights{only(rollout), only(rollout), owners(map[string]Writer{"spec": rollout, "spec.paused": api, "status": rollout})}
	case v1.Kind_KIND_CLAIM:
		return rights{only(pool), only(pool), owners(map[string]Writer{
			"pool": pool, "user": pool, "desktop": pool, "since": pool, "request_id": pool,
			"queued": pool, "expires": pool,
		})}
	case v1.Kind_KIND_PLAN:
		return rights{only(pool), only(pool), owners(map[string]Writer{
			"pool": pool, "date": pool, "time_zone": pool, "made": pool, "targets": pool, "hosts": pool, "starts": pool, "shortfalls": pool,
			"standing": pool,
		})}
	case v1.Kind_KIND_HISTORY:
		return rights{only(pool), only(pool), owners(map[string]Writer{"days": pool, "boots": pool})}
	case v1.Kind_KIND_EVENT:
		return rights{only(api, pool, placement, rollout, dispatch), only(pool), nil}
	case v1.Kind_KIND_JOIN_TOKEN:
		return rights{only(api), only(api), owners(map[string]Writer{
			"secret_hash": api, "expires": api, "role": api, "subject": api,
		})}
	}
	return rights{}
}

// owner returns the writer of a path, by the longest prefix that the table has; "" when nobody is.
func (r rights) owner(path string) Writer {
	if w, ok := r.fields[path]; ok {
		return w
	}
	if dot := strings.LastIndexByte(path, '.'); dot > 0 {
		return r.fields[path[:dot]]
	}
	return ""
}

// splits reports whether fields of the message at path have owners of their own.
func (r rights) splits(path string) bool {
	for owned := range r.fields {
		if strings.HasPrefix(owned, path+".") {
			return true
		}
	}
	return false
}

// checkCreate refuses objects that a writer may not create, and fields in them that are another's. Labels are free to
// whoever creates. An event belongs to whoever saw it happen.
func checkCreate(w Writer, o Object) error {
	r := rightsOf(KindOf(o))
	if !slices.Contains(r.create, w) {
		return fmt.Errorf("%s may not create it: %w", w, ErrNotOwner)
	}
	if KindOf(o) == v1.Kind_KIND_EVENT {
		return nil
	}
	blank := o.ProtoReflect().New().Interface().(Object)
	setMeta(blank, &v1.Meta{Labels: o.GetMeta().GetLabels()})
	return r.check(w, blank, o)
}

// checkUpdate refuses changes of fields that are another's, and changes that nobody may make.
func checkUpdate(w Writer, before, after Object) error {
	if err := rightsOf(KindOf(after)).check(w, ownable(before, after), after); err != nil {
		return err
	}
	return checkHistory(before, after)
}

func checkDelete(w Writer, kind v1.Kind) error {
	if !slices.Contains(rightsOf(kind).remove, w) {
		return fmt.Errorf("%s may not delete it: %w", w, ErrNotOwner)
	}
	return nil
}

func setMeta(o Object, meta *v1.Meta) {
	m := o.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage(meta.ProtoReflect()))
}

// ownable returns before as after is to be compared with: a new life of a desktop begins unplaced, so that its place
// is again placement's alone to give.
func ownable(before, after Object) Object {
	old, ok := before.(*v1.Desktop)
	if !ok || old.GetIncarnation().GetGeneration() == after.(*v1.Desktop).GetIncarnation().GetGeneration() {
		return before
	}
	if old.GetIncarnation() != nil {
		old = proto.CloneOf(old)
		old.Incarnation.Host, old.Incarnation.UnplacedReason = "", ""
	}
	return old
}

func (r rights) check(w Writer, before, after Object) error {
	var foreign []string
	r.compare(w, "", before.ProtoReflect(), after.ProtoReflect(), &foreign)
	if len(foreign) == 0 {
		return nil
	}
	slices.Sort(foreign)
	return fmt.Errorf("%s would change %s: %w", w, strings.Join(foreign, ", "), ErrNotOwner)
}

// compare collects the paths that differ and are not w's.
func (r rights) compare(w Writer, prefix string, before, after protoreflect.Message, foreign *[]string) {
	fields := after.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		path := prefix + string(fd.Name())
		if path == "meta.name" || path == "meta.uid" || path == "meta.revision" || path == "meta.created" {
			continue // the store's own: it gives them, whatever the writer says
		}
		if r.splits(path) || path == "meta" {
			if before.Has(fd) != after.Has(fd) && r.owner(path) != w {
				*foreign = append(*foreign, path)
			}
			r.compare(w, path+".", before.Get(fd).Message(), after.Get(fd).Message(), foreign)
			continue
		}
		same := before.Has(fd) == after.Has(fd) && before.Get(fd).Equal(after.Get(fd))
		if !same && r.owner(path) != w {
			*foreign = append(*foreign, path)
		}
	}
	if string(before.GetUnknown()) != string(after.GetUnknown()) {
		*foreign = append(*foreign, prefix+"(a field that this version does not know)")
	}
}

// checkHistory refuses what no writer may do, since it would unsay what others act on: lowering a fencing token, moving
// a placed incarnation (a new place is a new incarnation), taking back a deletion.
func checkHistory(before, after Object) error {
	if before.GetMeta().GetDeletion() != nil && after.GetMeta().GetDeletion() == nil {
		return fmt.Errorf("deletion was asked for and cannot be taken back: %w", ErrInvalid)
	}
	desktop, ok := after.(*v1.Desktop)
	if !ok {
		return nil
	}
	was, is := before.(*v1.Desktop).GetIncarnation(), desktop.GetIncarnation()
	if is.GetGeneration() < was.GetGeneration() {
		return fmt.Errorf("generation %d would follow %d: generations only rise: %w", is.GetGeneration(), was.GetGeneration(), ErrInvalid)
	}
	if is.GetGeneration() == was.GetGeneration() && was.GetHost() != "" && is.GetHost() != was.GetHost() {
		return fmt.Errorf("generation %d is placed on host %s and stays there: another place needs a new generation: %w",
			is.GetGeneration(), was.GetHost(), ErrInvalid)
	}
	return nil
}
