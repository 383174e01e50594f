// Package libvirt runs a host's VMs through libvirt, and speaks with the agents inside them.
//
// Here: the connection and its deadlines, the XML of a VM, lists and life of domains, guest agent, screen, QEMU's monitor,
// the probe of what the host can do. Not here: when a VM is started or stopped (hostagent), the files of its disks
// (hostagent/disk). It is the only room that imports libvirt's binding and go-qemu. Only cmd/daybreak-agent and tests call it.
package libvirt
