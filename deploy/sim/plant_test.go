package sim

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"daybreak/hostagent"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// TestCheckerFindsPlantedBugs does to a system that is well what a bug of the product would do, and wants the checker to
// say so: a checker that cannot fail proves nothing.
func TestCheckerFindsPlantedBugs(t *testing.T) {
	rows := []struct {
		name, invariant string
		plant           func(*scene)
	}{
		{"second QEMU on another host", "1", func(p *scene) { p.startElsewhere(p.life) }},
		{"life begins before the last is over", "1", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Incarnation.Generation++; d.Incarnation.Host = ""; d.Claim = nil })
		}},
		{"desktop removed while it runs", "1", func(p *scene) { p.commit(store.Delete(p.desktop)) }},
		{"life moves to another host", "1", func(p *scene) { p.change(func(d *v1.Desktop) { d.Incarnation.Host = "host-5" }) }},
		{"one side of a claim is lost", "2", func(p *scene) { p.change(func(d *v1.Desktop) { d.Claim = nil }) }},
		{"user holds two desktops", "2", func(p *scene) { p.claimTwice() }},
		{"store does not compare revisions", "2", func(p *scene) { p.crowd() }},
		{"used desktop is given on", "3", func(p *scene) { p.giveOn() }},
		{"overlay of a held desktop is thrown away", "4", func(p *scene) { _ = p.witness.TrashOverlay(p.sim.ctx, p.life) }},
		{"user's VM is shut down", "4", func(p *scene) { _ = p.witness.Shutdown(p.sim.ctx, p.life) }},
		{"user's VM is destroyed", "4", func(p *scene) { _ = p.witness.Destroy(p.sim.ctx, p.life) }},
		{"data disk is thrown away", "4", func(p *scene) { _ = p.witness.TrashData(p.sim.ctx, p.life.UID) }},
		{"unpublished version is stored", "5", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Incarnation.Digest = strings.Repeat("e", 64) })
		}},
		{"unpublished version runs", "5", func(p *scene) {
			p.startAs(func(m *hostagent.Machine) { m.Base = "/fake/bases/" + strings.Repeat("e", 64) })
		}},
		{"host is promised too much", "6", func(p *scene) { p.promise(12) }},
		{"too many boots at once", "6", func(p *scene) { p.bootMany(maxBoots + 1) }},
		{"NIC in another zone", "8", func(p *scene) { p.startAs(func(m *hostagent.Machine) { m.Bridge = "br-juki" }) }},
		{"desktop in another zone", "8", func(p *scene) { p.change(func(d *v1.Desktop) { d.Spec.Zone = "juki" }) }},
		{"VM is lost and nobody says so", "10", func(p *scene) { p.node.host.Kill(p.life) }},
		{"host never comes back", "10", func(p *scene) {
			p.node.link.set(networkCut)
			time.Sleep(time.Minute)
			p.sim.settle()
		}},
		{"acknowledged claim is forgotten", "11", func(p *scene) { p.forget() }},
		{"state goes backward", "state", func(p *scene) {
			p.change(func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_PREPARING })
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			inSim(t, 1, 6, func(s *sim) {
				if !s.settle() {
					s.report()
					return
				}
				p := newScene(s)
				if !s.check() {
					s.report() // the scene itself is sound
					return
				}
				row.plant(p)
				time.Sleep(time.Second)
				s.check()
				for _, found := range s.broken() {
					if strings.Contains(found, "invariant "+row.invariant+":") {
						return
					}
				}
				t.Errorf("not found; the checker says %q", s.broken())
			})
		})
	}
}

// scene is a user at work on a desktop, where a bug is planted.
type scene struct {
	sim     *sim
	user    *user
	desktop *v1.Desktop
	life    hostagent.Life
	node    *node
	witness *witness
}

func newScene(s *sim) *scene {
	p := &scene{sim: s, user: s.users[0]}
	p.user.claim(s.planes[0], false)
	time.Sleep(time.Second)
	if p.user.told != toldHeld {
		s.t.Fatalf("%s has no desktop", p.user.name)
	}
	p.desktop = s.history.desktop(p.user.held.GetMeta().GetName())
	p.life = hostagent.Life{Desktop: p.desktop.GetMeta().GetName(), UID: p.desktop.GetMeta().GetUid(), Generation: p.desktop.GetIncarnation().GetGeneration()}
	for _, n := range s.nodes {
		if n.name == p.desktop.GetIncarnation().GetHost() {
			p.node, p.witness = n, &witness{Host: n.host, node: n}
		}
	}
	return p
}

// commit writes past owners and leaders.
func (p *scene) commit(ops ...store.Op) {
	if _, err := p.sim.backend.Memory.Commit(p.sim.ctx, store.Guard{}, ops); err != nil {
		p.sim.t.Fatal(err)
	}
}

func (p *scene) changed(change func(*v1.Desktop)) store.Op {
	d := proto.CloneOf(p.desktop)
	change(d)
	return store.Update(d)
}

func (p *scene) change(change func(*v1.Desktop)) { p.commit(p.changed(change)) }

// claim returns the stored claim of the user.
func (p *scene) claim() *v1.Claim {
	p.sim.history.mu.Lock()
	defer p.sim.history.mu.Unlock()
	for _, c := range p.sim.history.claims {
		if c.GetUser() == p.user.name {
			return c
		}
	}
	return nil
}

func (p *scene) forget() {
	p.commit(p.changed(func(d *v1.Desktop) { d.Claim = nil }), store.Delete(p.claim()))
}

func (p *scene) giveOn() {
	next := proto.CloneOf(p.claim())
	next.Meta = &v1.Meta{Name: "stolen"}
	next.User = "somebody-else"
	p.commit(p.changed(func(d *v1.Desktop) { d.Claim.User = "somebody-else" }), store.Delete(p.claim()), store.Create(next))
}

func (p *scene) claimTwice() {
	for name, d := range p.sim.history.desktops {
		if name != p.life.Desktop && d.GetSpec().GetPool() == p.user.pool {
			second := proto.CloneOf(p.claim())
			second.Meta = &v1.Meta{Name: "second"}
			second.Desktop = name
			other := proto.CloneOf(d)
			other.Claim = p.desktop.GetClaim()
			p.commit(store.Update(other), store.Create(second))
			return
		}
	}
}

// crowd lets everybody claim at once on a store that has forgotten its one promise, again and again.
func (p *scene) crowd() {
	p.sim.backend.mu.Lock()
	p.sim.backend.careless = true
	p.sim.backend.mu.Unlock()
	for i := range 60 {
		for _, u := range p.sim.users {
			u.step(i%20 > 10)
		}
		time.Sleep(5 * time.Second)
	}
}

func (p *scene) machine() hostagent.Machine {
	p.sim.truth.mu.Lock()
	defer p.sim.truth.mu.Unlock()
	return p.sim.truth.machines[p.life]
}

// startElsewhere is what happens when a fence is missing: the same life on another host.
func (p *scene) startElsewhere(life hostagent.Life) {
	for _, n := range p.sim.nodes {
		if n != p.node {
			p.boot(n, life, p.machine().VMUUID)
			return
		}
	}
}

// boot starts a VM behind the agent's back.
func (p *scene) boot(n *node, life hostagent.Life, vmUUID string) {
	ctx := context.Background()
	digest := p.desktop.GetIncarnation().GetDigest()
	n.host.AddBase(digest, 1<<20)
	_, overlay, err := n.host.CreateOverlay(ctx, life, digest, 1<<20)
	if err != nil {
		p.sim.t.Fatal(err)
	}
	m := p.machine()
	m.Life, m.VMUUID, m.Overlay = life, vmUUID, overlay
	if err := (&witness{Host: n.host, node: n}).Start(ctx, m); err != nil {
		p.sim.t.Fatal(err)
	}
}

// startAs has the agent ask again for the VM that runs, with another machine.
func (p *scene) startAs(change func(*hostagent.Machine)) {
	m := p.machine()
	change(&m)
	if err := p.witness.Start(p.sim.ctx, m); err != nil {
		p.sim.t.Fatal(err)
	}
}

func (p *scene) bootMany(n int) {
	for i := range n {
		life := hostagent.Life{Desktop: "lgwan-" + strings.Repeat("9", i+2), UID: uuid.NewString(), Generation: 1}
		p.boot(p.node, life, uuid.NewString())
	}
}

// promise places desktops on a host that has no room for them.
func (p *scene) promise(n int) {
	for i := range n {
		d := proto.CloneOf(p.desktop)
		d.Meta = &v1.Meta{Name: "tight-" + strings.Repeat("9", i+2)}
		d.Spec.Pool, d.Spec.Zone, d.Claim, d.Status = "tight", "tight", nil, nil
		d.Incarnation.Shape = &v1.Shape{Vcpus: 1, MemoryMib: 2048}
		d.Incarnation.UsedBy = ""
		p.commit(store.Create(d))
	}
	p.sim.check() // before the pool takes them down again
}
