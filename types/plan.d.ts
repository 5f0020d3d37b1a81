// Written from src/plan/exported.ts by `npm run docs`; a test keeps them equal.

/** Looks at a plan by itself: its form, its order, what its gates ask. Throws nothing, touches nothing, and needs no site. */
export declare function checkPlan(plan: unknown): CheckedPlan;

/** A recovery plan: the same for a rehearsal, a planned move and a disaster, and for both sites. */
export type RecoveryPlan = {
  readonly description?: string;
  /** By network of the protected site, then by name of the site where the machines come up. */
  readonly networks?: {
    readonly [name: string]: {
      readonly [name: string]: {
        readonly kind: "bridge";
        readonly bridge: string;
      } | {
        readonly kind: "tap";
        readonly interfaceName: string;
      };
    };
  };
  /** Which points are the best, where a machine says nothing else. */
  readonly points?: {
    /** Only points of at least this consistency. */
    readonly atLeast?: "crash" | "file-system" | "application";
    /** How much older an application-consistent point may be and still be preferred; ten seconds if absent, 0: it counts for nothing. */
    readonly applicationWorthMs?: number;
    /** The same for one whose boot is proven; thirty seconds if absent. */
    readonly provenWorthMs?: number;
    /** No others than those whose last isolated boot passed. */
    readonly provenOnly?: boolean;
  };
  /** Names of groups whose machines come up from points of one cut. */
  readonly oneCut?: readonly string[];
  /** What is run before the first machine is begun, and when all have ended. */
  readonly hooks?: {
    readonly before?: readonly ({
      readonly arguments?: readonly string[];
      /** It is killed then; a minute if absent. */
      readonly limitMs?: number;
      /** That it fails is told, and no more. */
      readonly optional?: boolean;
      /** In which runs; `unplanned` and `take` if absent. */
      readonly on?: readonly ("test" | "unplanned" | "take" | "cede")[];
      readonly program: string;
    })[];
    readonly after?: readonly ({
      readonly arguments?: readonly string[];
      /** It is killed then; a minute if absent. */
      readonly limitMs?: number;
      /** That it fails is told, and no more. */
      readonly optional?: boolean;
      /** In which runs; `unplanned` and `take` if absent. */
      readonly on?: readonly ("test" | "unplanned" | "take" | "cede")[];
      readonly program: string;
    })[];
  };
  /** What makes sure that a machine is down at the other site, in the place of what the site says. */
  readonly fencing?: {
    readonly arguments?: readonly string[];
    /** It is killed then, and has fenced nothing; two minutes if absent. */
    readonly limitMs?: number;
    readonly program: string;
  };
  readonly plan: string;
  readonly machines: {
    readonly [name: string]: {
      /** What its NICs are connected to, by NIC id, in the place of what the networks of the plan say. */
      readonly networks?: {
        readonly [name: string]: {
          readonly kind: "bridge";
          readonly bridge: string;
        } | {
          readonly kind: "tap";
          readonly interfaceName: string;
        };
      };
      /** Which of its points is the best, in the place of what the plan says. */
      readonly points?: {
        /** Only points of at least this consistency. */
        readonly atLeast?: "crash" | "file-system" | "application";
        /** How much older an application-consistent point may be and still be preferred; ten seconds if absent, 0: it counts for nothing. */
        readonly applicationWorthMs?: number;
        /** The same for one whose boot is proven; thirty seconds if absent. */
        readonly provenWorthMs?: number;
        /** No others than those whose last isolated boot passed. */
        readonly provenOnly?: boolean;
      };
      /** Only points of at least this consistency. */
      readonly atLeast?: "crash" | "file-system" | "application";
      /** What is run before it is begun, and when it has passed its gates. */
      readonly hooks?: {
        readonly before?: readonly ({
          readonly arguments?: readonly string[];
          /** It is killed then; a minute if absent. */
          readonly limitMs?: number;
          /** That it fails is told, and no more. */
          readonly optional?: boolean;
          /** In which runs; `unplanned` and `take` if absent. */
          readonly on?: readonly ("test" | "unplanned" | "take" | "cede")[];
          readonly program: string;
        })[];
        readonly after?: readonly ({
          readonly arguments?: readonly string[];
          /** It is killed then; a minute if absent. */
          readonly limitMs?: number;
          /** That it fails is told, and no more. */
          readonly optional?: boolean;
          /** In which runs; `unplanned` and `take` if absent. */
          readonly on?: readonly ("test" | "unplanned" | "take" | "cede")[];
          readonly program: string;
        })[];
      };
      /** Further machines that are up before it. */
      readonly after?: readonly string[];
      /** What makes sure that it is down at the other site, in the place of what the plan says. */
      readonly fencing?: {
        readonly arguments?: readonly string[];
        /** It is killed then, and has fenced nothing; two minutes if absent. */
        readonly limitMs?: number;
        readonly program: string;
      };
      /** Machines of a lower tier are up before; 1 if absent. */
      readonly tier?: number;
      /** Counts as up when its guest has answered all of these; the agent, where there is one, if absent. */
      readonly gates?: readonly ({
        readonly limitMs?: number;
        readonly kind: "agent";
      } | {
        readonly limitMs?: number;
        readonly kind: "serial";
        readonly pattern: string;
      } | {
        readonly limitMs?: number;
        /** The network at the protected site; the first NIC's if absent. */
        readonly network?: string;
        /** The address with prefix length that the asking side takes there; the last free one of the host's /24 if absent. */
        readonly from?: string;
        readonly kind: "tcp";
        readonly host: string;
        readonly port: number;
      } | {
        readonly limitMs?: number;
        readonly pattern?: string;
        /** The network at the protected site; the first NIC's if absent. */
        readonly network?: string;
        /** The address with prefix length that the asking side takes there; the last free one of the host's /24 if absent. */
        readonly from?: string;
        /** The name that the server is asked for, where it has several. */
        readonly name?: string;
        /** Any from 200 to 399 if absent. */
        readonly status?: number;
        readonly kind: "http";
        /** Of a web server, with an IPv4 address for the host; certificates are not looked at. */
        readonly url: string;
      } | {
        readonly arguments?: readonly string[];
        readonly limitMs?: number;
        readonly pattern?: string;
        readonly kind: "guest";
        readonly command: string;
      } | {
        readonly limitMs?: number;
        readonly pattern?: string;
        /** Its name; for SQLite the path of its file, without which nothing is asked. */
        readonly database?: string;
        readonly kind: "sql";
        readonly system: "postgresql" | "mariadb" | "mysql" | "sqlite";
        readonly query: string;
      } | {
        readonly limitMs?: number;
        readonly kind: "script";
        readonly program: string;
      })[];
      /** What is different about it, by name of the site where it comes up. */
      readonly at?: {
        readonly [name: string]: {
          /** By NIC id: set through the guest agent before the guest is asked its probes. */
          readonly addresses?: {
            readonly [name: string]: {
              readonly gateway?: string;
              readonly dns?: readonly string[];
              /** With prefix length; the first one is the one that gates ask. */
              readonly addresses: readonly string[];
            };
          };
          readonly inTest?: {
            readonly memoryBytes?: number;
            readonly cpus?: number;
          };
          readonly memoryBytes?: number;
          readonly cpus?: number;
          readonly mac?: "keep" | "new";
          readonly uuid?: "keep" | "new";
          /** A program of the guest that sets them, in the place of `ip`: it gets interface, addresses, gateway and resolvers. */
          readonly addressTool?: string;
        };
      };
      /** What a person has to say yes to before it starts. */
      readonly approval?: string;
      /** How long its guest may take to shut down when it is handed over. */
      readonly graceMs?: number;
    };
  };
};

/** What is known of a plan without a site. */
export type CheckedPlan = {
  /** Machines in the order in which they may begin; those of one list together. Empty where they wait for each other. */
  readonly order: readonly (readonly string[])[];
  /** What is wrong with it; a plan with none is carried out. What a site lacks is said by `warmsite plan check` there. */
  readonly findings: readonly ({
    readonly machine?: string;
    readonly severity: "error" | "warning";
    readonly message: string;
  })[];
};
