// What `vmlet-runtime --help` prints.
export const HELP = `NAME:
   vmlet-runtime - an OCI runtime whose containers are virtual machines

USAGE:
   vmlet-runtime [global options] command [command options] [arguments...]

COMMANDS:
   create      create a container
   start       executes the user defined process in a created container
   run         create and run a container
   exec        execute new process inside the container
   state       output the state of a container
   list        lists containers with the given root
   ps          displays the processes running inside a container
   kill        sends the specified signal (default: SIGTERM) to the container's process
   pause       suspends the container's virtual machine
   resume      resumes it
   update      update container resource constraints
   events      display container resource usage
   delete      delete any resources held by the container
   spec        create a new specification file
   features    show the enabled features

GLOBAL OPTIONS:
   --root FOLDER        where the state of containers is kept (default: /run/vmlet-runtime)
   --log FILE           where to write the log (default: standard error)
   --log-format FORMAT  text (default) or json
   --debug              log more
   --systemd-cgroup     cgroupsPath is SLICE:PREFIX:NAME
   --jail on|off        whether a monitor is sealed before its program begins (default:
                        on, unless the container's annotation io.vmlet.jail is off)
   --help, -h           show help
   --version, -v        print the version

It takes runc's place in Docker, podman and containerd: docs/oci.md.
`;
