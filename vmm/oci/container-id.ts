// What may be the name of a container.
export const ID = /^(?!\.{1,2}$)[\w+.-]{1,1024}$/;
