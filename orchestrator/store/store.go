// Package store keeps Daybreak's objects: typed, with a revision each, changed by compare-and-swap, watched without gap
// or duplicate.
//
// Here: the contract (Backend), the handles that writers hold (Store), who may write what (owners.go), the backend in
// memory, the mirror from which loops read, and what everybody reads of an object in the same way (State, Version). Not
// here: etcd (store/etcdstore), decisions, anything of the network. orchestrator and api use it, and the CLI reads
// objects with it; api and every loop open a handle of their own.
package store

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels. Callers compare with errors.Is; every error that wraps one names the object.
var (
	// ErrNotFound: no such object.
	ErrNotFound = errors.New("not found")
	// ErrExists: an object of that name is there already.
	ErrExists = errors.New("already exists")
	// ErrConflict: the object changed since the revision that the caller named. Nothing was written.
	ErrConflict = errors.New("changed meanwhile")
	// ErrNotLeader: the handle belongs to a leader that leads no more. Nothing was written.
	ErrNotLeader = errors.New("no longer the leader")
	// ErrNotOwner: the handle's writer does not own a field that the write would change. Nothing was written.
	ErrNotOwner = errors.New("not the owner of this field")
	// ErrUnknownOutcome: the write may or may not have happened. Read again before deciding anew.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrInvalid: the object breaks a rule of its own proto, or is too large. Nothing was written.
	ErrInvalid = errors.New("invalid object")
	// ErrBroken: the stored bytes are not such an object.
	ErrBroken = errors.New("stored value is broken")
)

// Object is any stored message. Objects that come out of a store are shared: clone before changing.
type Object interface {
	proto.Message
	GetMeta() *v1.Meta
}

// Ref names an object.
type Ref struct {
	Kind v1.Kind
	Name string
}

// String gives kind and name for people: "pool sales".
func (r Ref) String() string {
	return KindName(r.Kind) + " " + r.Name
}

// Verb is what an Op does.
type Verb int

const (
	// VerbCheck writes nothing: the object must be at Revision; 0 means it must not exist.
	VerbCheck Verb = iota
	// VerbCreate makes a new object; ErrExists when there is one.
	VerbCreate
	// VerbUpdate replaces the object that is at Revision.
	VerbUpdate
	// VerbDelete removes the object that is at Revision.
	VerbDelete
)

func (v Verb) String() string {
	switch v {
	case VerbCheck:
		return "check"
	case VerbCreate:
		return "create"
	case VerbUpdate:
		return "update"
	case VerbDelete:
		return "delete"
	}
	return "unknown verb"
}

// Op is one step of a transaction.
type Op struct {
	Verb Verb
	Ref  Ref
	// Revision that must be current. Update and Delete need one; there is no blind write.
	Revision int64
	// Object to write, for Create and Update.
	Object Object
}

// Create makes an Op that creates the object. The store gives uid, revision and created; a uid that is set is kept.
func Create(o Object) Op {
	return Op{Verb: VerbCreate, Ref: RefOf(o), Object: o}
}

// Update makes an Op that replaces the object whose revision is o's.
func Update(o Object) Op {
	return Op{Verb: VerbUpdate, Ref: RefOf(o), Revision: o.GetMeta().GetRevision(), Object: o}
}

// Delete makes an Op that removes o if it is still at its revision.
func Delete(o Object) Op {
	return Op{Verb: VerbDelete, Ref: RefOf(o), Revision: o.GetMeta().GetRevision()}
}

// Check makes an Op that fails the transaction unless o is still at its revision.
func Check(o Object) Op {
	return Op{Verb: VerbCheck, Ref: RefOf(o), Revision: o.GetMeta().GetRevision()}
}

// Backend is the contract that the memory store and etcd both keep; storetest holds them to it.
type Backend interface {
	// Get returns the object or ErrNotFound. It reads the newest committed state.
	Get(ctx context.Context, ref Ref) (Object, error)
	// Fetch is Get for up to MaxOps at once, all as they were at one revision; nil stands where there is no such object.
	Fetch(ctx context.Context, refs []Ref) ([]Object, error)
	// List returns all objects of a kind sorted by name, and the revision at which they were all so.
	List(ctx context.Context, kind v1.Kind) ([]Object, int64, error)
	// Commit applies every Op or none, and returns the revision that the store has then: the one that every written
	// object has. guard, if not empty, is a leadership key and its creation revision that must still hold. When Ops
	// fail, the error holds an *OpError for each: ErrExists for a Create, ErrConflict for the others. A backend checks
	// a transaction's form (Prepare); rules of objects and rights of writers are the handle's business.
	Commit(ctx context.Context, guard Guard, ops []Op) (int64, error)
	// Watch calls sink with a Reset batch that holds all objects of the kinds (of every kind if none is given), then
	// with every change after it, in order, each exactly once, until ctx ends or sink fails; it returns that error.
	// When changes were lost to compaction it sends a new Reset batch. The changes of one transaction are in one
	// batch, and no object is twice in a batch. A batch without changes tells that the store's revision went on.
	Watch(ctx context.Context, kinds []v1.Kind, sink func(Batch) error) error
}

// Guard ties a write to leadership: it fails with ErrNotLeader unless the key exists with that creation revision.
type Guard struct {
	Key      string
	Revision int64
}

// Batch is what a watch delivers at once.
type Batch struct {
	// Reset: Changed is everything there is; forget what was known.
	Reset bool
	// Revision of the store that the receiver now knows.
	Revision int64
	Changed  []Object
	Deleted  []Ref
}

// OpError says which step of a transaction could not be done, and why.
type OpError struct {
	Op  Op
	Err error
}

func (e *OpError) Error() string {
	return e.Op.Verb.String() + " " + e.Op.Ref.String() + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
