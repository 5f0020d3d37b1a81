import Type from 'typebox';
import { Reference } from './common.ts';

export const RenameRequest = Type.Object({ name: Reference }, { additionalProperties: false });
